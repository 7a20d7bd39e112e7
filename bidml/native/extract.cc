#include "extract.h"

#include <algorithm>

namespace bidml {
namespace {

constexpr std::pair<const char*, Derived> kDerived[] = {
    {"hour_of_day", Derived::hour_of_day},
    {"weekday", Derived::weekday},
    {"banner_size", Derived::banner_size},
    {"app_or_site", Derived::app_or_site},
    {"inventory", Derived::inventory},
    {"ad_format", Derived::ad_format},
    {"os_version_major", Derived::os_version_major},
};
constexpr const char* kFormats[] = {"banner", "video", "audio", "native"};

Derived derived_of(const std::string& path) {
  const std::string prefix = "derived.";
  if (path.compare(0, prefix.size(), prefix) != 0) return Derived::none;
  for (const auto& [name, derived] : kDerived) {
    if (path.compare(prefix.size(), std::string::npos, name) == 0) return derived;
  }
  throw std::invalid_argument("a derived feature is known; found " + path + "; update bidml");
}

double leading_integer(std::string_view text) noexcept {
  double x = kMissing;
  for (size_t i = 0; i < text.size() && i < 6 && text[i] >= '0' && text[i] <= '9'; ++i) {
    x = (i == 0 ? 0.0 : 10.0 * x) + (text[i] - '0');
  }
  return x;
}

}  // namespace

Extractor::Extractor(const std::vector<Source>& sources, const std::string& timestamp_ms_path) {
  PlanNode root;
  root.at("cur", Access::currencies);
  const PlanNode& at = root.leaf_at("at");
  root.object_at("imp", Access::imp);
  const PlanNode& floor = root.leaf_at("imp.bidfloor");
  const PlanNode& floor_currency = root.leaf_at("imp.bidfloorcur");
  const PlanNode& private_auction = root.leaf_at("imp.pmp.private_auction");

  const auto wants = [&](std::initializer_list<Derived> any) {
    return std::any_of(sources.begin(), sources.end(), [&](const Source& source) {
      return std::find(any.begin(), any.end(), derived_of(source.path)) != any.end();
    });
  };
  std::vector<std::pair<uint16_t*, const PlanNode*>> leaves, objects;
  const auto leaf = [&](uint16_t& number, const char* path) { leaves.emplace_back(&number, &root.leaf_at(path)); };
  const auto object = [&](uint16_t& number, const std::string& path, Access access = Access::field) {
    objects.emplace_back(&number, &root.object_at(path, access));
  };
  const auto size = [&](Size& of, const std::string& path, Access access = Access::field) {
    object(of.object, path, access);
    leaf(of.w, (path + ".w").c_str());
    leaf(of.h, (path + ".h").c_str());
  };
  if (wants({Derived::hour_of_day, Derived::weekday})) {
    leaf(timestamp_, timestamp_ms_path.c_str());
    leaf(utcoffset_, "device.geo.utcoffset");
  }
  if (wants({Derived::banner_size})) {
    size(banner_, "imp.banner");
    size(first_format_, "imp.banner.format", Access::first);
    size(video_, "imp.video");
  }
  if (wants({Derived::app_or_site, Derived::inventory})) {
    object(app_, "app");
    object(site_, "site");
  }
  if (wants({Derived::inventory})) {
    leaf(bundle_, "app.bundle");
    leaf(domain_, "site.domain");
  }
  if (wants({Derived::ad_format})) {
    for (size_t i = 0; i < 4; ++i) object(formats_[i], std::string("imp.") + kFormats[i]);
  }
  if (wants({Derived::os_version_major})) leaf(osv_, "device.osv");

  std::vector<const PlanNode*> nodes;
  for (const Source& source : sources) {
    nodes.push_back(derived_of(source.path) == Derived::none ? &root.leaf_at(source.path) : nullptr);
  }
  plan_ = std::make_unique<const RequestPlan>(root);
  for (const auto& [number, node] : leaves) *number = node->leaf;
  for (const auto& [number, node] : objects) *number = node->container;
  terms_ = {at.leaf, private_auction.leaf, floor.leaf, floor_currency.leaf};
  for (size_t i = 0; i < sources.size(); ++i) {
    const Field field{nodes[i] ? nodes[i]->leaf : kNone, derived_of(sources[i].path), sources[i].slot};
    (sources[i].is_category ? categories_ : field.derived == Derived::none ? numbers_ : derived_numbers_)
        .push_back(field);
  }
}

std::string_view Extractor::derived_text(const Found& found, Derived derived, TextScratch& scratch) const noexcept {
  switch (derived) {
    case Derived::banner_size:
      return banner_size(found, scratch);
    case Derived::app_or_site:
      return found.is_open[app_] ? "app" : found.is_open[site_] ? "site" : "";
    case Derived::inventory:
      return found.is_open[app_]    ? scratch.of(found.values[bundle_])
             : found.is_open[site_] ? scratch.of(found.values[domain_])
                                    : std::string_view();
    case Derived::ad_format:
      for (size_t i = 0; i < 4; ++i) {
        if (found.is_open[formats_[i]]) return kFormats[i];
      }
      return {};
    default:
      return {};
  }
}

// "320x50" from the banner, else its first format, else the video; "" when there is none.
std::string_view Extractor::banner_size(const Found& found, TextScratch& scratch) const noexcept {
  if (!found.is_open[banner_.object]) return text_of_size(found, video_, scratch);
  const std::string_view size = text_of_size(found, banner_, scratch);
  return size.empty() ? text_of_size(found, first_format_, scratch) : size;
}

std::string_view Extractor::text_of_size(const Found& found, const Size& size, TextScratch& scratch) const noexcept {
  if (!found.is_open[size.object]) return {};
  const double w = found.values[size.w].number(), h = found.values[size.h].number();
  constexpr double kLargest = 1e6;
  if (!(w > 0.0 && h > 0.0 && w <= kLargest && h <= kLargest && w == int32_t(w) && h == int32_t(h))) return {};
  char text[32];
  char* end = std::to_chars(text, text + 16, int32_t(w)).ptr;
  *end++ = 'x';
  end = std::to_chars(end, end + 16, int32_t(h)).ptr;
  return scratch.copy({text, size_t(end - text)});
}

Extractor::Clock Extractor::local_time(const Found& found) const noexcept {
  double seconds = found.values[timestamp_].number() / 1000.0;
  if (!(seconds >= 0.0 && seconds < 1e11)) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    seconds = double(now.tv_sec);
  }
  const double offset_minutes = found.values[utcoffset_].number();
  if (offset_minutes >= -1440.0 && offset_minutes <= 1440.0) seconds += 60.0 * offset_minutes;
  constexpr int64_t kADay = 24, kBefore = 7 * kADay;  // a week earlier, so that truncation rounds down
  const int64_t hours = int64_t((seconds + 3600.0 * kBefore) / 3600.0);
  return {double(hours % kADay), double((hours / kADay + 3) % 7)};  // 1970-01-01 was a Thursday
}

void Extractor::derive_numbers(const Found& found, double* numbers) const noexcept {
  Clock clock{kMissing, kMissing};
  if (timestamp_ != kNone) clock = local_time(found);
  for (const Field& field : derived_numbers_) {
    switch (field.derived) {
      case Derived::hour_of_day:
        numbers[field.slot] = clock.hour_of_day;
        break;
      case Derived::weekday:
        numbers[field.slot] = clock.weekday;
        break;
      case Derived::os_version_major: {
        const Value& version = found.values[osv_];
        TextScratch scratch;
        numbers[field.slot] = version.is_text() ? leading_integer(scratch.of(version)) : kMissing;
        break;
      }
      default:
        numbers[field.slot] = kMissing;
    }
  }
}

}  // namespace bidml
