#include "request_plan.h"

#include <stdexcept>

#include "request_values.h"

namespace bidml {

PlanNode& PlanNode::at(std::string_view path, Access access) {
  const size_t dot = path.find('.');
  const std::string_view first = path.substr(0, dot);
  PlanNode* found = nullptr;
  for (const auto& child : children) {
    if (child->key == first) found = child.get();
  }
  if (found == nullptr) {
    found = children.emplace_back(std::make_unique<PlanNode>()).get();
    found->key = first;
  }
  if (dot != std::string_view::npos) return found->at(path.substr(dot + 1), access);
  if (access != Access::field) found->access = access;
  return *found;
}

PlanNode& PlanNode::leaf_at(std::string_view path) {
  PlanNode& node = at(path);
  node.wants_value = true;
  return node;
}

PlanNode& PlanNode::object_at(std::string_view path, Access access) {
  PlanNode& node = at(path, access);
  node.wants_object = true;
  return node;
}

RequestPlan::RequestPlan(PlanNode& root) {
  number(root);
  if (containers_.size() > kMostContainers) {
    throw std::invalid_argument("a spec reads at most " + std::to_string(kMostContainers) +
                                " objects of a request; found " + std::to_string(containers_.size()) +
                                "; drop some features");
  }
  if (n_leaves_ > kMostLeaves) {
    throw std::invalid_argument("a spec reads at most " + std::to_string(kMostLeaves) + " values of a request; found " +
                                std::to_string(n_leaves_) + "; drop some features");
  }
  add_keys(root);
}

void RequestPlan::number(PlanNode& node) {
  node.container = uint16_t(containers_.size());
  const uint16_t mine = node.container;
  containers_.push_back({});
  containers_[mine].first_leaf = uint16_t(n_leaves_);
  for (const auto& child : node.children) {
    if (child->wants_value) child->leaf = uint16_t(n_leaves_++);
  }
  for (const auto& child : node.children) {
    if (child->is_opened()) number(*child);
  }
  containers_[mine].end_leaf = uint16_t(n_leaves_);
  containers_[mine].end_container = uint16_t(containers_.size());
}

void RequestPlan::add_keys(PlanNode& node) {
  Container& c = containers_[node.container];
  c.first_key = uint16_t(keys_.size());
  for (const auto& child : node.children) {
    if (child->key.empty() || child->key.size() > 64) {
      throw std::invalid_argument("a key has 1 to 64 characters; found " + child->key + "; correct the path");
    }
    keys_.push_back({child->leaf, child->container, child->access, uint8_t(child->key.size())});
    texts_.push_back(child->key);
    texts_.back().resize(128, '\0');
  }
  c.end_key = uint16_t(keys_.size());
  size_t n_slots = 4;
  while (n_slots < 4 * node.children.size()) n_slots *= 2;
  c.table = uint16_t(table_.size());
  c.table_mask = uint16_t(n_slots - 1);
  table_.resize(table_.size() + n_slots);
  for (uint16_t k = c.first_key; k < c.end_key; ++k) {
    const char* text = texts_[k].data();
    const uint64_t head = head_of(text, keys_[k].size, text + 128);
    uint32_t at = hash_of(head, keys_[k].size);
    while (table_[c.table + (at & c.table_mask)].key != kNone) ++at;
    uint64_t last = 0;
    if (keys_[k].size > 8) std::memcpy(&last, text + keys_[k].size - 8, 8);
    table_[c.table + (at & c.table_mask)] = {head, last, k, keys_[k].size};
  }
  for (const auto& child : node.children) {
    if (child->is_opened()) add_keys(*child);
  }
}

}  // namespace bidml
