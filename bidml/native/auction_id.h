// The id of a request, for line items that explore: a plan of its own, so that others pay nothing for it.
#pragma once

#include <memory>
#include <string_view>

#include "read_dict.h"
#include "read_json.h"
#include "request_plan.h"

namespace bidml {

class AuctionIdReader {
 public:
  AuctionIdReader() {
    PlanNode root;
    const PlanNode& id = root.leaf_at("id");
    plan_ = std::make_unique<const RequestPlan>(root);
    leaf_ = id.leaf;
    dict_ = std::make_unique<const DictReader>(*plan_);
  }

  const RequestPlan& plan() const noexcept { return *plan_; }
  const DictReader& dict() const noexcept { return *dict_; }

  // Empty for what names no auction: no text or integer, an empty or an endless text.
  std::string_view id(const Found& found, TextScratch& scratch) const noexcept {
    const std::string_view text = scratch.of(found.values[leaf_]);
    return text == kUnmatchable ? std::string_view() : text;
  }

 private:
  std::unique_ptr<const RequestPlan> plan_;
  std::unique_ptr<const DictReader> dict_;
  uint16_t leaf_ = kNone;
};

}  // namespace bidml
