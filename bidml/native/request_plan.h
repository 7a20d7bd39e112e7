// Which parts of a request are read: a tree of keys, compiled from paths, that both readers follow.
//
// A key of an object has a leaf (its value is wanted), a child container (it is opened), or both. Containers and leaves
// are numbered in preorder, parents first, so that a container's subtree is one range of each: forgetting what a
// duplicate key held earlier is clearing two ranges.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bidml {

constexpr uint16_t kNone = 0xFFFF;

enum class Access : uint8_t {
  field,
  imp,         // a list: the child is the auctioned element
  first,       // a list: the child is its first element
  element,     // a list: the child is one of its elements, that which the reader is asked for
  currencies,  // a list of currencies that bids may be in
};

// A wanted place while the plan is built; numbers are known after `RequestPlan`'s constructor.
struct PlanNode {
  std::string key;
  Access access = Access::field;
  bool wants_value = false;
  std::vector<std::unique_ptr<PlanNode>> children;
  uint16_t leaf = kNone, container = kNone;

  // The node at "a.b.c" below this one, made if there is none; it counts as an object when it has children.
  PlanNode& at(std::string_view path, Access access = Access::field);
  // The same, and its value is wanted.
  PlanNode& leaf_at(std::string_view path);
  // The same, and it is opened: whether an object is there is wanted.
  PlanNode& object_at(std::string_view path, Access access = Access::field);

  bool wants_object = false;
  bool is_opened() const { return wants_object || !children.empty(); }
};

class RequestPlan {
 public:
  struct Key {
    uint16_t leaf, child;
    Access access;
    uint8_t size;  // of its text, at most 64
  };
  struct Container {
    uint16_t first_key, end_key;
    uint16_t first_leaf, end_leaf, end_container;  // of the subtree
    uint16_t table, table_mask;                    // into `table_`
  };

  static constexpr uint16_t kRoot = 0;

  // Numbers the nodes. Throws std::invalid_argument beyond kMostLeaves and kMostContainers.
  explicit RequestPlan(PlanNode& root);

  size_t n_containers() const noexcept { return containers_.size(); }
  size_t n_leaves() const noexcept { return n_leaves_; }
  size_t n_keys() const noexcept { return keys_.size(); }
  const Container& container(size_t i) const noexcept { return containers_[i]; }
  const Key& key(size_t i) const noexcept { return keys_[i]; }
  const char* text(size_t key) const noexcept { return texts_[key].data(); }  // zero-padded to 64 bytes and more

  // The key of container `c` that reads `text`, or null. `end`: up to where memory may be read.
  const Key* find(const Container& c, const char* text, size_t size, const char* end) const noexcept {
    if (size - 1 >= 64) return nullptr;
    const uint64_t head = head_of(text, size, end);
    for (uint32_t at = hash_of(head, size);; ++at) {
      const Slot& slot = table_[c.table + (at & c.table_mask)];
      if (slot.key == kNone) return nullptr;
      if (slot.head == head && slot.size == size && (size <= 8 || rest_is(slot, text, size))) {
        return &keys_[slot.key];
      }
    }
  }

 private:
  struct Slot {
    uint64_t head = 0;   // its first 8 bytes, zero-padded
    uint64_t last = 0;   // its last 8 bytes, where it has more than 8
    uint16_t key = kNone;
    uint16_t size = 0;
  };

  bool rest_is(const Slot& slot, const char* text, size_t size) const noexcept {
    uint64_t last;
    std::memcpy(&last, text + size - 8, 8);
    return slot.last == last && (size <= 16 || std::memcmp(texts_[slot.key].data() + 8, text + 8, size - 16) == 0);
  }

  // The first 8 bytes, zero-padded.
  static uint64_t head_of(const char* text, size_t size, const char* end) noexcept {
    uint64_t head = 0;
    if (end - text >= 8) {
      std::memcpy(&head, text, 8);
      return size < 8 ? head & ((uint64_t{1} << 8 * size) - 1) : head;
    }
    std::memcpy(&head, text, size);
    return head;
  }
  static uint32_t hash_of(uint64_t head, size_t size) noexcept {
    return uint32_t(((head ^ size) * 0x9E3779B97F4A7C15u) >> 40);
  }

  void number(PlanNode& node);
  void add_keys(PlanNode& node);

  std::vector<Container> containers_;
  std::vector<Key> keys_;
  std::vector<std::string> texts_;
  std::vector<Slot> table_;
  size_t n_leaves_ = 0;
};

}  // namespace bidml
