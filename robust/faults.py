"""Mistakes one could make in the native code, each a small edit; all are compiled into one build, one is in force.

`old` is an expression or statements of a file below `bidml/native`, found once; `new` stands in for it while the fault
is in force. The environment variable BIDML_FAULT holds the fault's number (`number_of`). A test-suite, or an attack, is
as good as the faults it notices.
"""

# ruff: noqa: E501 (a fault is a line)
from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from robust.builds import ROOT


@dataclass(frozen=True)
class Fault:
    """`tests`: where it should be noticed first; `survives`: why no test can see it, where none can."""

    name: str
    file: str
    old: str
    new: str
    tests: str = ""
    survives: str = ""


def _in(file: str, tests: str, *rows: tuple[str, ...]) -> list[Fault]:
    return [Fault(row[0], file, row[1], row[2], tests, row[3] if len(row) > 3 else "") for row in rows]


BY_AN_ATTACK = "robust"  # seen by an attack under TSan or ASan, and by no test
_PRICE = "tests/score/test_decision.py tests/score/test_extreme_curves.py tests/pricing/test_native_price.py tests/score/test_batch.py"
_ENGINE = "tests/native/test_engine.py tests/native/test_exactness.py"
_CROSSES = "tests/native/test_pairs.py tests/score/test_served_crosses.py"

FAULTS: tuple[Fault, ...] = (
    *_in(
        "price.h",
        _PRICE,
        ("value per hundred", "1000.0 * pctr", "100.0 * pctr"),
        ("pacing forgotten", "out.value_cpm * in.pacing_multiplier", "out.value_cpm"),
        ("a NaN floor passes", "!(in.floor_cpm >= 0.0)", "in.floor_cpm < 0.0"),
        ("any auction type", "!(in.auction_type == 1 || in.auction_type == 2)", "false"),
        ("negative times negative", "in.value_per_click >= 0.0 && in.pacing_multiplier >= 0.0 && v > 0.0", "v > 0.0"),
        ("infinite value", "v < std::numeric_limits<double>::infinity()", "true"),
        ("floor above cap", "in.cap_cpm > 0.0 && in.cap_cpm >= in.floor_cpm", "in.cap_cpm > 0.0"),
        ("cap of zero or less", "in.cap_cpm > 0.0 && in.cap_cpm >= in.floor_cpm", "in.cap_cpm >= in.floor_cpm"),
        ("bid at a floor that is the value", "!(v > in.floor_cpm)", "!(v >= in.floor_cpm)"),
        ("second price taken for first", "out.optimum_cpm = in.auction_type == 2 ? v : first_price_optimum_cpm(curve, terms, v);",
         "out.optimum_cpm = in.auction_type == 1 ? v : first_price_optimum_cpm(curve, terms, v);"),
        ("not raised to the floor", "std::max(out.optimum_cpm, in.floor_cpm)", "out.optimum_cpm"),
        ("above value", "std::min(in.cap_cpm, v)", "in.cap_cpm",
         "no optimum is above the value, and the guard stands behind: the line is redundant by intent"),
        ("above cap", "std::min(in.cap_cpm, v)", "v"),
        ("doubled after the guard", "out.bid_cpm = bid;", "out.bid_cpm = 2.0 * bid;"),
        ("no guard", "!(bid > 0.0 && bid >= in.floor_cpm && bid <= in.cap_cpm && bid <= v)", "false",
         "the guard is redundant by intent: it stands alone if the lines above break"),
        ("win rate of the optimum", "win_rate(curve, gamma, bid)", "win_rate(curve, gamma, out.optimum_cpm)"),
        ("two Halley steps fewer", "step < kHalleySteps", "step < kHalleySteps - 2"),
        ("Halley without curvature", "k * s * (1.0 - s)", "k * s"),
        ("one step toward the root", "y -= householder_step(y, k, d, e, log_of(1.0 + e));", ";"),
        ("a rough step last", "y -= householder_step(y, k, d, rough, rough_log_1_plus(rough));", ";"),
        ("the root's own sigmoid", "sigmoid(-y)", "sigmoid(y)"),
        ("the fast price for any curve", "k >= kFlattest && k <= kSteepest && std::fabs(curve.location) <= kMostAbsLocation", "true"),
        ("start below the root", "d > 0.0 ? d / (1.0 + k) : d", "d"),
        ("small probabilities lost", "return (x >= 0.0 ? 1.0 : e) / (1.0 + e);", "return x >= 0.0 ? 1.0 / (1.0 + e) : 1.0 - 1.0 / (1.0 + e);"),
        ("beta calibration's sign", "c.positive * ln_p - c.negative * ln_q", "c.positive * ln_p + c.negative * ln_q"),
        ("shift without slope forgotten", "c.positive == 1.0 && c.shift == 0.0", "c.positive == 1.0"),
        ("ln p without its linear part", "-(std::max(-log_odds, 0.0) + tail)", "-tail"),
        ("location not clamped", "std::max(location_margin, -kMaxAbsWinLogit)", "location_margin"),
        ("slope not clamped", "std::max(log_slope_margin, kMinLogSlope)", "log_slope_margin"),
        ("logit shift forgotten", "(w.slope_scale * beta + w.logit_shift)", "(w.slope_scale * beta)"),
        ("slope scale forgotten", "w.slope_scale * exp_of(a)", "exp_of(a)"),
        ("Dagum exponent forgotten", "exp_of(-gamma * softplus(-z))", "exp_of(-softplus(-z))"),
        ("Dagum exponent forgotten in the price", "gamma * k", "k"),
    ),
    *_in(
        "price.h",
        "tests/export/test_golden.py",
        ("the location's unit forgotten", "w.location_is_log_price", "false"),
    ),
    *_in(
        "scorer.h",
        "tests/score/test_decision.py tests/score/test_scorer.py",
        ("floor in any currency", "floor_cpm = amount * rate;", "floor_cpm = amount;"),
        ("unknown currency is ours", "if (!(rate > 0.0)) return Reason::kUnknownCurrency;", ";"),
        ("a floor that is no number is none", "if (!(amount >= 0.0)) return Reason::kInvalidFloor;", "if (!(amount >= 0.0)) return Reason::kBid;"),
        ("currencies not looked at", "if (!found.currency_accepted) return Reason::kUnknownCurrency;", ";"),
        ("private auctions are open", "found.values[leaves.private_auction].number() == 1.0", "false"),
        ("the model's auction type always", "at == 1.0 || at == 2.0", "at == 2.0"),
        ("no default auction type", "auction_type = model.default_auction_type;", ";"),
    ),
    *_in(
        "price.h",
        "tests/score/test_paid_conversions.py",
        ("impressions are worth nothing", "in.value_per_impression_cpm", "0.0"),
    ),
    *_in(
        "scorer.h",
        "tests/score/test_paid_conversions.py",
        ("conversions are worth nothing", "value_of_click += trace.pcvr * inputs.value_per_conversion;", ";"),
        ("conversions calibrated as clicks", "calibrated(model.cvr_calibration, trace.margins[3])", "calibrated(model.calibration, trace.margins[3])"),
        ("no conversion model is no conversion", "trace.decision.reason = Reason::kNoConversionModel;\n      return;", "trace.pcvr = 0.0;"),
    ),
    *_in(
        "scorer.h",
        "tests/score/test_risk_aversion.py",
        ("uncertainty raises the value", "trace.log_odds - inputs.risk_aversion * trace.log_odds_sd", "trace.log_odds + inputs.risk_aversion * trace.log_odds_sd"),
        ("an aversion has no effect", "paced_value(pctr, value_of_click, inputs)", "paced_value(trace.pctr, value_of_click, inputs)"),
        ("an unknown uncertainty is an unknown conversion rate", "Reason::kNoUncertaintyModel", "Reason::kNoConversionModel"),
    ),
    *_in(
        "price.h",
        "tests/score/test_risk_aversion.py",
        ("the variance is not clamped", "std::sqrt(std::min(std::max(variance_margin, kMinVariance), kMaxVariance))", "std::sqrt(std::fabs(variance_margin))"),
        ("the variance is taken for the deviation", "std::sqrt(std::min(std::max(variance_margin, kMinVariance), kMaxVariance))", "std::min(std::max(variance_margin, kMinVariance), kMaxVariance)"),
        ("a soft floor bids without an uncertainty", "reason == Reason::kNoConversionModel || reason == Reason::kNoUncertaintyModel", "reason == Reason::kNoConversionModel"),
    ),
    *_in(
        "best.h",
        "tests/score/test_risk_aversion.py",
        ("best forgets the variance head", "if (line.risk_aversion != 0.0) heads |= kVarianceHead;", ";"),
    ),
    *_in(
        "batch.cc",
        "tests/score/test_risk_aversion.py",
        ("a batch without its aversions", "if (batch.prices[7] != nullptr) in.risk_aversion = batch.prices[7][i];", ";"),
        ("a batch bids with garbage for an aversion", "in.value_per_impression_cpm >= 0.0 && in.risk_aversion >= 0.0", "in.value_per_impression_cpm >= 0.0"),
    ),
    *_in(
        "deals.h",
        "tests/score/test_deals.py",
        ("a deal for any line item", "if (text == line.deals[i]) return Py_ssize_t(i);", "return Py_ssize_t(i);"),
        ("a fixed price above the cap", "!(price_cpm <= cap_cpm)", "false"),
        ("a fixed price above the value", "!(v > price_cpm)", "false"),
        ("a fixed price of nothing", "!(price_cpm > 0.0)", "false"),
        ("the open auction of a private one", "return reason == Reason::kBid;", "return reason == Reason::kBid || reason == Reason::kPrivateAuction;"),
        ("a deal at the open auction's floor", "in.floor_cpm = own.floor_cpm;", ";"),
        ("the last deal, not the best", "!best.bids() || is_better", "true"),
        ("the open auction where a deal is as good", "offer.surplus_cpm >= best.surplus_cpm", "offer.surplus_cpm > best.surplus_cpm",
         "only a fixed price that equals a surplus to the last bit tells them apart"),
        ("a deal is never of the request's kind", "std::isnan(kind) ? open.auction_type : kind == 1.0 || kind == 2.0 ? int(kind) : 0", "kind == 1.0 || kind == 2.0 ? int(kind) : 0"),
    ),
    *_in(
        "encoder.h",
        _CROSSES,
        ("crosses: the first side twice", "std::memcpy(key + sizeof(uint32_t), row + crosses_[i].second, sizeof(uint32_t));", "std::memcpy(key + sizeof(uint32_t), row + crosses_[i].first, sizeof(uint32_t));"),
    ),
    *_in(
        "encoder.cc",
        _CROSSES,
        ("crosses: the second side of a code twice", "uint32_t(uint64_t(code) / n_second)", "uint32_t(uint64_t(code) % n_second)"),
        ("crosses: an unknown text is the first", "number.lookup.default_value = double(vocabulary.keys.size);", "number.lookup.default_value = 0.0;"),
        ("crosses: not in the blank row", "if (has_crosses()) set_crosses(blank);", ";"),
    ),
    *_in(
        "engine.cc",
        _CROSSES,
        ("crosses: forgotten where sides are merged", "if (__builtin_expect(impl_->encoder.has_crosses(), 0)) impl_->encoder.set_crosses(bytes_of(out));", ";"),
        ("crosses: forgotten in long rows", "impl_->margins_of_crossed_rows(request, line, head_mask, out);", "impl_->margins_of_long_rows(bytes_of(request), bytes_of(line), head_mask, out);"),
    ),
    *_in(
        "batch.cc",
        _CROSSES,
        ("crosses: forgotten in batches", "engine_.cross(rows_, count);", ";"),
    ),
    *_in(
        "validate.cc",
        _CROSSES,
        ("crosses: a code of no pair", "code >= 0.0 && code < n_pairs && code == std::trunc(code)", "true"),
        ("crosses: as many as one likes", "crosses_.size() <= kMaxCrosses", "true"),
    ),
    *_in(
        "deals.h",
        "tests/score/test_best_deal.py",
        ("the last line item that bids", "best.index < 0 || offer.surplus_cpm > best.offer.surplus_cpm", "true"),
        ("the last line item of equals", "offer.surplus_cpm > best.offer.surplus_cpm", "offer.surplus_cpm >= best.offer.surplus_cpm"),
        ("the highest bid, not surplus", "offer.surplus_cpm > best.offer.surplus_cpm", "offer.decision.bid_cpm > best.offer.decision.bid_cpm"),
        ("the deals of line items are forgotten", "if (line.deals.empty()) return best;", "return best;"),
    ),
    *_in(
        "exploration.h",
        "tests/score/test_varied_bids.py",
        ("varied bids leave the bounds", "std::min(std::max(bid * exp_of(sigma * z), lowest), highest)", "bid * exp_of(sigma * z)",
         "the quantile lies between the cuts but for rounding: the guard below refuses what is not inside"),
        ("the density forgets the cuts", "(sigma * kRootOfTwoPi * mass)", "(sigma * kRootOfTwoPi)"),
        ("the density forgets the share", "found.propensity *= how.share;", ";"),
        ("one number for choice and jitter", "uniform_of(seed, 2 * imp + 1)", "uniform_of(seed, 2 * imp)"),
        ("all impressions of a request alike", "uniform_of(seed, 2 * imp) < how.share", "uniform_of(seed, 0) < how.share"),
        ("all line items alike", "siphash_2_4(how.key, auction_id)", "siphash_2_4({}, auction_id)"),
        ("the id ends after 32 bytes", "siphash_2_4(how.key, auction_id)", "siphash_2_4(how.key, auction_id.substr(0, 32))"),
        ("everything is varied", "uniform_of(seed, 2 * imp) < how.share", "true"),
        ("only downwards", "taken < mass_below", "true"),
    ),
    *_in(
        "scorer.h",
        "tests/score/test_varied_bids.py",
        ("a request without an id is varied", "!id.empty()", "true"),
        ("second price is varied", "line.exploration.share > 0.0 && is_paid", "line.exploration.share > 0.0"),
        ("varied above the cap", "std::min(highest_cpm, v)", "v"),
        ("varied above the value", "std::min(highest_cpm, v)", "highest_cpm"),
        ("the win rate of the intended bid", "win_rate(trace.curve, model.win.gamma, varied.bid_cpm)", "decision.win_rate"),
    ),
    *_in(
        "deals.h",
        "tests/score/test_varied_bids.py",
        ("a deal varied down to no floor", "best.floor_cpm", "0.0"),
        ("a fixed price is varied", "best.is_paid", "true"),
    ),
    *_in(
        "offer.h",
        "tests/score/test_soft_floors.py tests/score/test_deals.py",
        ("a soft floor is never undercut", "low.surplus_cpm > high.surplus_cpm", "false"),
        ("a soft floor is always undercut", "low.surplus_cpm > high.surplus_cpm", "true"),
        ("above a soft floor the market price is paid", "std::max(in.floor_cpm, soft_floor_cpm)", "in.floor_cpm"),
        ("below a soft floor up to the cap", "std::min(in.cap_cpm, soft_floor_cpm)", "in.cap_cpm"),
        ("garbage for a soft floor is 0", "soft_floor_cpm < 0.0", "false"),
        ("an optimum above the soft floor", "std::min(low.decision.optimum_cpm, soft_floor_cpm)", "low.decision.optimum_cpm"),
    ),
    *_in(
        "scorer.h",
        "tests/score/test_soft_floors.py",
        ("varied above the soft floor", "trace.decision = offer.decision;\n    is_paid = offer.is_paid;\n    highest_cpm = offer.highest_cpm;", "trace.decision = offer.decision;\n    is_paid = offer.is_paid;"),
    ),
    *_in(
        "wire.h",
        "tests/score/test_runs.py tests/score/test_hostile_files.py",
        ("a text beyond its message is read", "varint(data, at, size) > end - at - size", "false"),
        ("a number beyond its message is read", "at + size <= end", "true"),
        ("a number in a longer form is read", "size == 1 || data[at + size - 1] != 0", "true"),
    ),
    *_in(
        "telemetry.h",
        "tests/score/test_varied_bids.py",
        ("varied bids count as moved", "add(explored);\n      return;", "add(explored);"),
    ),
    *_in(
        "surplus.h",
        "tests/score/test_deals.py tests/score/test_scorer.py",
        ("second price earns nothing below the bid", "(v - bid) * win_rate(curve, gamma, bid) + saved", "(v - bid) * win_rate(curve, gamma, bid)"),
    ),
    *_in(
        "best.h",
        "tests/score/test_scorer.py tests/score/test_paid_conversions.py tests/score/test_varied_bids.py tests/score/test_soft_floors.py",
        ("the worst line item", "surplus_cpm > best_surplus_cpm", "surplus_cpm < best_surplus_cpm"),
        ("best forgets the conversion head", "if (line.value_per_conversion != 0.0) heads |= kCvrHead;", ";"),
        ("best varies second price", "best.is_paid", "best.index >= 0"),
        ("the truth above a soft floor is varied by best", "d = offer.decision;\n          is_paid = offer.is_paid;", "d = offer.decision;\n          is_paid = true;"),
        ("best by what second price earns without its soft floor", "surplus_cpm = soft_surplus_cpm;", ";"),
        ("the best of second price by what first price earns", "__builtin_expect(terms.auction_type == 2, 0)", "false"),
        ("the bound of second price is too low", "(v - terms.floor_cpm) * d.win_rate < best_surplus_cpm", "(v - terms.floor_cpm) * d.win_rate < 2.0 * best_surplus_cpm"),
    ),
    *_in(
        "batch.cc",
        "tests/score/test_paid_conversions.py",
        ("a batch bids with garbage for money", "in.value_per_click = kMissing;", ";"),
        ("a batch without its conversions", "if (batch.prices[5] != nullptr) in.value_per_conversion = batch.prices[5][i];", ";"),
    ),
    *_in(
        "scorer.h",
        BY_AN_ATTACK,
        ("pacing is read without an atom", "line.pacing_multiplier.load(std::memory_order_relaxed)", "reinterpret_cast<const double&>(line.pacing_multiplier)"),
        ("one scratch row for all threads", "(*static_cast<::bidml::Row*>(__builtin_alloca_with_align((engine).row_bytes(), 512)))",
         "(*reinterpret_cast<::bidml::Row*>([]() -> char* { alignas(512) static char row[65536]; return row; }()))"),
    ),
    *_in(
        "bindings.cc",
        BY_AN_ATTACK,
        ("a batch counts without the GIL", "score_batch(model, batch, telemetry)", "score_batch(model, batch, scorer.telemetry)"),
    ),
    *_in(
        "extract.cc",
        "tests/score/test_what_a_model_reads.py",
        ("a week begins on Sunday", "(hours / kADay + 3) % 7", "(hours / kADay + 4) % 7"),
        ("minutes are seconds", "seconds += 60.0 * offset_minutes;", "seconds += offset_minutes;"),
        ("a site before an app", 'found.is_open[app_] ? "app" : found.is_open[site_] ? "site" : ""', 'found.is_open[site_] ? "site" : found.is_open[app_] ? "app" : ""'),
        ("formats not looked at", "size.empty() ? text_of_size(found, first_format_, scratch) : size", "size"),
        ("one digit of a version", "i < text.size() && i < 6", "i < text.size() && i < 1"),
        ("a size of half a pixel", "w == int32_t(w) && h == int32_t(h)", "true"),
    ),
    *_in(
        "request_values.h",
        "tests/score/test_what_a_model_reads.py tests/score/test_json_numbers.py",
        ("infinities are numbers", "v.kind = std::isfinite(x) ? kind : Kind::other;", "v.kind = kind;"),
        ("long text not refused", "value.size <= kLongestText", "true",
         "no key has more than 1,024 bytes: longer text equals none either way"),
        ("a big integer is text", "return kUnmatchable;", "return {};"),
    ),
    *_in(
        "read_dict.cc",
        "tests/score/test_read_dict.py tests/score/test_garbage.py tests/score/test_decision.py",
        ("a bool is a number", "PyLong_Check(object) && !PyBool_Check(object)", "PyLong_Check(object)"),
        ("NaN in a float", "value.kind = std::isfinite(x) ? Kind::real : Kind::other;", "value.kind = Kind::real;"),
        ("an error is left behind", "if (real == -1.0 && PyErr_Occurred()) {\n    PyErr_Clear();\n    real = kMissing;\n  }", "if (real == -1.0 && PyErr_Occurred()) {\n    real = kMissing;\n  }"),
        ("a reference is kept", "return found == nullptr ? nullptr : lookup_.held_.hold(Reference(found));", "Py_XINCREF(found);\n      return found == nullptr ? nullptr : lookup_.held_.hold(Reference(found));"),
        ("the first impression always", "key->access == Access::imp ? imp.index : 0", "0"),
        ("a key where it was last, unseen", "there != nullptr && is_exact(there) && key.wanted.is(there)", "there != nullptr && is_exact(there)"),
        ("a dict of shared keys read in place", "if (!DictEntries::is_plain(dict)) lookup_.is_exact = false;", ";"),
        ("an empty list accepts nothing", "return n == 0;", "return false;"),
    ),
    *_in(
        "read_json.cc",
        "tests/score/test_json_numbers.py tests/score/test_json.py",
        ("JSON: the first of two keys", "if (found_.is_open[key.child] || key.access != Access::field) forget(key);", ";"),
        ("JSON: what comes after", "p != nullptr && json::after_space(p, end) == end", "p != nullptr"),
        ("JSON: any depth", "return depth < kDeepestJson ? object(p + 1, key.child, depth + 1) : nullptr;", "return object(p + 1, key.child, depth + 1);",
         "an object that the plan opens is as deep as the plan, not as the text; what is skipped has a limit of its own"),
        ("JSON: eighteen decimals exact", "n_digits <= 15 && n_decimals <= 22 && !has_exponent", "n_digits <= 18 && n_decimals <= 22 && !has_exponent"),
        ("JSON: objects in lists close as lists", "c != (in_object ? '}' : ']')", "c != '}' && c != ']'"),
        ("JSON: a byte order mark", "bytes.remove_prefix(3);", ";"),
    ),
    *_in(
        "json_text.h",
        "tests/score/test_json.py",
        ("JSON: leading zeros", "n_whole == 0 || (n_whole > 1 && *first == '0')", "n_whole == 0"),
        ("JSON: surrogates are text", "string.has_surrogate |= uint8_t(*p) == 0xED && end - p > 1 && uint8_t(p[1]) >= 0xA0;", ";",
         "bytes that are not UTF-8 equal no key either: the same bid"),
        ("JSON: reads beyond the end", "end - p < 6 || !is_hex(p[2])", "!is_hex(p[2])",
         "what is read beyond the end changes no answer: only the attack json under ASan sees it"),
        ("JSON: control characters in text", "_mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20))", "_mm_cmplt_epi8(bytes, _mm_set1_epi8(0))"),
    ),
    *_in(
        "dict_entries.h",
        "tests/score/test_read_dict.py",
        ("keys alike in length", "((first_word(data) ^ head) & head_mask) == 0 && (size <= 8 || tail_is(data))", "((first_word(data) ^ head) & head_mask) == 0"),
    ),
    *_in(
        "engine.cc",
        _ENGINE,
        ("divisor forgotten", "h.forest.sum(*kernels, lanes) / h.divisor * h.scale + h.intercept", "h.forest.sum(*kernels, lanes) * h.scale + h.intercept"),
        ("intercept forgotten", "h.forest.sum(*kernels, lanes) / h.divisor * h.scale + h.intercept", "h.forest.sum(*kernels, lanes) / h.divisor * h.scale"),
        ("last term only", "margin += term;", "margin = term;"),
        ("long rows: blank forgotten", "terms[i] = a[place.terms + i] ^ b[place.terms + i] ^ blank[place.terms + i];", "terms[i] = a[place.terms + i] ^ b[place.terms + i];"),
        ("sides: the request twice", "impl_->kernels->combine(bytes_of(out), bytes_of(request), bytes_of(line), impl_->encoder.blank(), row_bytes());",
         "impl_->kernels->combine(bytes_of(out), bytes_of(request), bytes_of(request), impl_->encoder.blank(), row_bytes());"),
    ),
    *_in(
        "encoder.h",
        _ENGINE,
        ("missing number taken for a large one", "code == target.missing_code ? target.values : code", "code"),
        ("words: the first value always", "word_values_[target.values + codes[target.slot]]", "word_values_[target.values]"),
        ("terms not written", "for (uint32_t i = 0; i < slot.n_terms; ++i, payload += 8) std::memcpy(row + *piece++, payload, 8);", ";"),
    ),
    *_in(
        "encoder.cc",
        _ENGINE,
        ("every key gets the default", "lookup.keys[next[u]] == key", "false"),
        ("every pair gets the default", "lookup.codes[next[u]] == code", "false"),
        ("unseen text is zero", "append(fallback, use, use.lookup->default_value);", "append(fallback, use, 0.0);"),
        ("categories not rewritten", "rewritten(value, use.rewrite)", "value"),
        ("numbers not rewritten", "rewritten(x, placed.rewrite)", "x"),
        ("missing number is rank 0", "values.push_back(placed.lane->missing);", "values.push_back(0);"),
        ("missing text is not the empty text", 'set_category(blank, slot, "", 0);', 'set_category(blank, slot, "\\xff", 1);',
         "each slot is set by one side, by the empty text too, and then the blank cancels out of a ^ b ^ blank"),
    ),
    *_in(
        "lanes.cc",
        _ENGINE,
        ("NaN ranks one too low", "std::max(lane.missing, k + 1)", "std::max(lane.missing, k)"),
        ("one lane for nodes that disagree on NaN", "to_true.empty()", "true"),
        ("NaN is never a member", "side ? 0u : 1u", "1u"),
        ("member flags swapped", "contains(steps, x) ? 0 : 1", "contains(steps, x) ? 1 : 0"),
        ("no break below a member", "steps.push_back(below(member));", "steps.push_back(member);"),
        ("zero is 1e-35 exactly", "1.0000000180025095e-35", "1e-35"),
        ("minus zero not missing", "steps.push_back(below(-zero));", ";"),
        ("thresholds of truncated numbers not moved", "step = last_truncated_to(step);", ";"),
        ("256 values in a byte", "longest > kByteValues", "longest > kByteValues + 1"),
        ("129 lanes in two registers", "plan.lanes.size() > kByteLanes", "plan.lanes.size() > kByteLanes + 1"),
        ("missing is in no bit set", "if (missing_true(use.members[i])) bits[lane.missing / 32] |= 1u << (lane.missing % 32);", ";"),
        ("a lane starts one above", "return uint32_t(position(steps, x));", "return uint32_t(std::upper_bound(steps.begin(), steps.end(), x) - steps.begin());"),
    ),
    *_in(
        "forest.cc",
        _ENGINE,
        ("bar one too high", "uint8_t(254 - node.k)", "uint8_t(255 - node.k)"),
        ("early leaf on the false side", "fill_complete(reader, at, depth, 2 * cell, level + 1, lanes, bars, leaves);", "fill_complete(reader, at, depth, 2 * cell + 1, level + 1, lanes, bars, leaves);"),
        ("a stride too few", "(depth + stride - 1) / stride", "depth / stride"),
        ("every pair of leaves is one", "a.is_leaf && b.is_leaf && a.at == b.at", "a.is_leaf && b.is_leaf"),
        ("a node too many in a block", "size.n_nodes < 64", "size.n_nodes <= 64"),
        ("half the lanes loaded", "lanes.lanes.size() <= 32", "lanes.lanes.size() <= 64"),
        ("wide nodes: sides swapped", "open.push_back({reader.side(at.at, true), side});", "open.push_back({reader.side(at.at, false), side});"),
        ("walk: every bar is 0", "node.lane | node.k << 8 | uint32_t(pair - place) << 16", "node.lane | uint32_t(pair - place) << 16"),
        ("depth 6 runs as depth 5", "std::max(size.depth, kShallowest)", "std::min(std::max(size.depth, kShallowest), 5u)"),
    ),
    *_in(
        "numbers.h",
        _ENGINE,
        ("bisection stops one early", "slot.blocks[(low + half) * 8 - 1] < x", "slot.blocks[(low + half) * 8 - 1] <= x"),
    ),
    *_in(
        "kernel_scalar.cc",
        _ENGINE,
        ("scalar: on a threshold goes up", "count += block[i] < x", "count += block[i] <= x"),
        ("scalar: NaN is a number", "if (values[i] != values[i]) codes[i] = missing[i];", ";"),
        ("scalar: size of the key not compared", "StringTable::size_of(cell) == size && std::memcmp(table.key_of(cell), text, size) == 0", "std::memcmp(table.key_of(cell), text, size) == 0"),
        ("scalar: text of the key not compared", "StringTable::size_of(cell) == size && std::memcmp(table.key_of(cell), text, size) == 0", "StringTable::size_of(cell) == size"),
        ("scalar: blank forgotten", "x ^= y ^ z;", "x ^= y;"),
        ("scalar: average rounds down", "uint32_t(ranks[node[0]] + node[64]) > 254", "uint32_t(ranks[node[0]] + node[64]) > 255"),
        ("walk: at the bar", "(ranks[node & 255] > (node >> 8 & 255))", "(ranks[node & 255] >= (node >> 8 & 255))"),
        ("wide: set of 31", "forest.bit_sets[node.k + rank / 32] >> rank % 32 & 1", "forest.bit_sets[node.k + rank / 32] >> rank % 31 & 1"),
        ("wide: rank at the threshold", "rank > node.k", "rank >= node.k"),
    ),
    *_in(
        "kernel_avx2.cc",
        _ENGINE,
        ("avx2: on a threshold goes up", "_mm256_cmp_pd(x, _mm256_load_pd(block), _CMP_GT_OQ)", "_mm256_cmp_pd(x, _mm256_load_pd(block), _CMP_GE_OQ)"),
        ("avx2: NaN is a number", "values[i] == values[i] ? codes[i] : missing[i]", "codes[i]"),
        ("avx2: blank forgotten", "_mm256_xor_si256(_mm256_xor_si256(load(a), load(b)), load(blank))", "_mm256_xor_si256(load(a), load(b))"),
        ("avx2: second half of a block", "bits |= uint64_t(uint32_t(says_false)) << (32 * half);", "bits |= uint64_t(uint32_t(says_false));"),
    ),
    *_in(
        "kernel_avx512.cc",
        _ENGINE,
        ("avx512: on a threshold goes up", "_mm512_cmp_pd_mask(x, _mm512_load_pd(block), _CMP_GT_OQ)", "_mm512_cmp_pd_mask(x, _mm512_load_pd(block), _CMP_GE_OQ)"),
        ("avx512: size of the key not compared", "(uint64_t(differs) | (StringTable::size_of(cell) ^ size)) == 0", "differs == 0"),
        ("avx512: seventh tree twice", "s7 += first[cell[7] + 7 * n_cells];", "s7 += first[cell[6] + 6 * n_cells];"),
        ("avx512: long text's tail", "return finish_hash(_mm512_aesenc_epi128(_mm512_xor_si512(state, load_text(text, size)), key));", "return finish_hash(_mm512_aesenc_epi128(_mm512_xor_si512(state, load_text(text, 0)), key));",
         "a hash that ignores some bytes finds the same keys: more collisions, no other answer"),
        ("avx512: true leaves not leaves", "_cvtu64_mask64(true_leaf[b])", "_cvtu64_mask64(true_leaf[b] & 1)"),
    ),
    *_in(
        "string_table.cc",
        _ENGINE,
        ("two keys in a cell", "owners[cell] == kEmpty && std::find(cells.begin(), cells.end(), cell) == cells.end()", "owners[cell] == kEmpty"),
        ("keys outside cells overlap", "text_end += size;", ";"),
    ),
    *_in(
        "string_table.h",
        _ENGINE,
        ("every text is found", "-intptr_t{found}", "-intptr_t{1}"),
    ),
    *_in(
        "validate.cc",
        _ENGINE,
        ("a child before its parent", "child > int64_t(parent) && size_t(child) < t.column.size", "size_t(child) < t.column.size"),
        ("a child that is not there", "child > int64_t(parent) && size_t(child) < t.column.size", "child > int64_t(parent)"),
        ("a leaf that is not there", "child >= 0 && size_t(child) < t.leaf.size", "child >= 0"),
        ("a column that is not there", "t.column[i] >= 0 && size_t(t.column[i]) < n_columns", "t.column[i] >= 0"),
        ("any depth", "depth[i] <= kMaxDepth", "true"),
        ("a NaN threshold", "!std::isnan(t.threshold[i])", "true"),
        ("a set that does not end", "closed && n_sets == n_members", "n_sets == n_members"),
        ("a root that is not there", "root >= 0 && size_t(root) < n", "root >= 0"),
        ("a node of two trees", "depth[child] == 0", "true"),
        ("an infinite leaf", "std::abs(leaf) <= kMaxAbsLeaf", "true"),
    ),
    *_in(
        "log_normal.h",
        "tests/score/test_log_normal.py tests/pricing/test_native_price.py tests/export/test_golden.py",
        ("log-normal: ln of the lower tail above zero", "z < 0.0 ? log_of(tail) - half_square : log_of(1.0 - exp_of(-half_square) * tail)", "z < 1.0 ? log_of(tail) - half_square : log_of(1.0 - exp_of(-half_square) * tail)"),
        ("log-normal: a term of the tail lost", "eight(kScaledTail + 16) * t8", "eight(kScaledTail + 8) * t8"),
        ("log-normal: a step fewer", "log_normal_optimum_by<FastFunctions>(k, gamma, v, c, 3)", "log_normal_optimum_by<FastFunctions>(k, gamma, v, c, 2)"),
        ("log-normal: no curvature", "2.0 * f1 * f1 - f * f2", "2.0 * f1 * f1"),
        ("log-normal: the hazard does not fall", "std::max(z + rho, 0.0)", "std::max(rho, 0.0)"),
        ("log-normal: Dagum exponent forgotten in the price", "kRootOf2Pi / (gamma * k)", "kRootOf2Pi / k"),
        ("log-normal: the value, not the bid", "return v * (odds.n / (odds.n + odds.d));", "return v * (odds.d / (odds.n + odds.d));"),
        ("log-normal: the fast price for any curve", "k >= 1e-3 && k <= 64.0 && gamma >= 0.1 && gamma <= 10.0 && std::fabs(c) <= 100.0", "true"),
    ),
    *_in(
        "knots.h",
        "tests/score/test_bent_calibration.py tests/export/test_golden.py",
        ("knots: the line before, on a knot", "x <= t", "x < t", "the broken line is continuous: both lines have the knot"),
        ("knots: flat behind the last", "lines_.push_back({x.back(), y.back(), 1.0});", "lines_.push_back({x.back(), y.back(), 0.0});"),
        ("knots: flat before the first", "lines_.push_back({x[0], y[0], 1.0});", "lines_.push_back({x[0], y[0], 0.0});"),
        ("knots: a slope of its inverse", "(y[i + 1] - y[i]) / (x[i + 1] - x[i])", "(x[i + 1] - x[i]) / (y[i + 1] - y[i])"),
        ("knots: they need not rise", "!(x[i] < x[i + 1])", "false"),
        ("knots: one is enough", "x.size() < 2 || x.size() != y.size()", "x.size() != y.size()"),
    ),
    *_in(
        "price.h",
        "tests/score/test_log_normal.py tests/score/test_bent_calibration.py",
        ("log-normal: Dagum exponent forgotten", "exp_of(gamma * log_normal_cdf(z))", "exp_of(log_normal_cdf(z))"),
        ("knots: the shift forgotten", "c.knots.bent(weighted(c, log_odds)) + c.shift", "c.knots.bent(weighted(c, log_odds))"),
        ("knots: before the map", "c.knots.bent(weighted(c, log_odds)) + c.shift", "weighted(c, c.knots.bent(log_odds)) + c.shift"),
    ),
    *_in(
        "ending.h",
        "tests/score/test_process_ends.py",
        ("the end does not wait", "n_begun_ > 0", "false"),
        ("loads after the end", "ended_ && !pthread_equal(pthread_self(), ender_)", "false"),
        ("the ending thread may not load", "ended_ && !pthread_equal(pthread_self(), ender_)", "ended_"),
        ("a child of fork waits for its parent's loads", "n_begun_ = 0;", ";"),
    ),
    *_in(
        "validate.cc",
        BY_AN_ATTACK,
        ("a column before the first is read", "n_members += t.mode[i] == kMember;", "n_members += t.mode[i] == kMember + 2 * (*(&t.column[0] - 1) == -54321);"),
    ),
)  # fmt: skip


def number_of(name: str) -> int:
    """The number by which a broken build knows the fault: of the name alone, so that a new fault changes no other."""
    return zlib.crc32(name.encode()) >> 1


def edits() -> dict[str, str]:
    """Native file name → its content with all faults in it; raises `ValueError` for an `old` that is not there once."""
    texts: dict[str, str] = {}
    chains: dict[tuple[str, str], list[Fault]] = {}
    for fault in FAULTS:
        text = texts.setdefault(fault.file, (ROOT / "bidml" / "native" / fault.file).read_text())
        if text.count(fault.old) != 1:
            raise ValueError(f"{fault.name}: {fault.file} has {text.count(fault.old)} times {fault.old!r}")
        chains.setdefault((fault.file, fault.old), []).append(fault)
    for (file, old), faults in chains.items():
        if old not in texts[file]:
            raise ValueError(f"{faults[0].name} overlaps with another fault of {file}: {old!r}")
        texts[file] = texts[file].replace(old, _chain(old, faults))
    return texts


def _chain(old: str, faults: list[Fault]) -> str:
    """`old` unless one of the faults at its place is in force."""
    if old.endswith(";") or (old.endswith("}") and ";" in old):
        cases = "".join(f"if (BIDML_FAULT({number_of(f.name)})) {{ {f.new} }} else " for f in faults)
        return f"{cases}{{ {old} }}"
    for text in (old, *(f.new for f in faults)):
        code = re.sub(r"'.'", "", text)
        if any(code.count(a) != code.count(b) for a, b in ("()", "[]", "{}")):
            raise ValueError(f"{faults[0].name}: neither an expression nor statements: {text!r}")
    cases = "".join(f"BIDML_FAULT({number_of(f.name)}) ? ({f.new}) : " for f in faults)
    return f"({cases}({old}))"
