// The deals of an impression, `imp.pmp.deals`, one element at a time: a plan of their own, so that who reads no deals pays
// nothing for them. A list is read again for each element, for few are looked at.
#pragma once

#include <memory>

#include "read_dict.h"
#include "read_json.h"
#include "request_plan.h"

namespace bidml {

constexpr size_t kMostDeals = 32;  // of a list; contract.MAX_DEALS

class DealReader {
 public:
  struct Leaves {
    uint16_t id, floor, floor_currency, auction_type;
  };

  DealReader() {
    PlanNode root;
    root.object_at("imp", Access::imp);
    const PlanNode& deal = root.object_at("imp.pmp.deals", Access::element);
    const PlanNode &id = root.leaf_at("imp.pmp.deals.id"), &floor = root.leaf_at("imp.pmp.deals.bidfloor"),
                   &currency = root.leaf_at("imp.pmp.deals.bidfloorcur"), &at = root.leaf_at("imp.pmp.deals.at");
    plan_ = std::make_unique<const RequestPlan>(root);
    leaves_ = {id.leaf, floor.leaf, currency.leaf, at.leaf};
    deal_ = deal.container;
    dict_ = std::make_unique<const DictReader>(*plan_);
  }

  const RequestPlan& plan() const noexcept { return *plan_; }
  const DictReader& dict() const noexcept { return *dict_; }
  const Leaves& leaves() const noexcept { return leaves_; }
  bool is_object(const Found& found) const noexcept { return found.is_open[deal_]; }

 private:
  std::unique_ptr<const RequestPlan> plan_;
  std::unique_ptr<const DictReader> dict_;
  Leaves leaves_{};
  uint16_t deal_ = kNone;
};

}  // namespace bidml
