// What `bidml/score/telemetry.py` reads.
#pragma once

#include <nanobind/nanobind.h>

#include "telemetry.h"

namespace bidml {

template <class Numbers>
nanobind::list list_of(const Numbers& numbers) {
  nanobind::list out;
  for (const auto& x : numbers) out.append(x);
  return out;
}

template <class Histogram>
nanobind::tuple histogram_tuple(const Histogram& histogram) {
  return nanobind::make_tuple(Histogram::kFirstExponent, list_of(histogram.counts), histogram.sum);
}

inline nanobind::dict telemetry_dict(const Telemetry& telemetry) {
  nanobind::dict out;
  out["decisions"] = list_of(telemetry.decisions);
  out["lowered"] = telemetry.lowered;
  out["raised"] = telemetry.raised;
  out["explored"] = telemetry.explored;
  out["pctr"] = histogram_tuple(telemetry.pctr);
  out["pcvr"] = histogram_tuple(telemetry.pcvr);
  out["bid_cpm"] = histogram_tuple(telemetry.bid_cpm);
  out["ticks_taken"] = histogram_tuple(telemetry.ticks_taken);
  out["seconds_per_tick"] = seconds_per_tick();
  out["looked_at"] = telemetry.features.looked_at;
  out["missing"] = list_of(telemetry.features.missing);
  out["unseen"] = list_of(telemetry.features.unseen);
  return out;
}

}  // namespace bidml
