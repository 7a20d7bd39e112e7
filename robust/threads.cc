// Eight threads decide by one model, without any lock of ours, while models are swapped and pacing changes: threads
// N_SWAPS. Linked with the objects of the TSan build; Python is not in the process, so nothing is held by its GIL.
//
// The model in service is one atomic shared pointer, as a version is one attribute in Python: a reader takes it, decides,
// lets go; the last reader frees an old one. Every decision must be one of the model's, for one of the pacings.
// Prints "swaps decisions wrong".
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "best.h"

// Of the readers of dicts, which are linked for their destructors: nothing here has a Python object.
extern "C" void _Py_Dealloc(PyObject*) { std::abort(); }

namespace {

using namespace bidml;

constexpr int kThreads = 8, kLines = 4;
constexpr double kPacings[] = {1.0, 0.5, 0.0, 0.25, 1.5};
const std::string kRequests[] = {
    R"({"imp":[{"bidfloor":0.05,"banner":{"w":320,"h":50}}],"device":{"geo":{"country":"USA"},"osv":"17.1"}})",
    R"({"at":2,"imp":[{"banner":{"w":1,"h":2}}],"device":{"geo":{"country":"DEU"}},"app":{"bundle":"com.example"}})",
    R"({"imp":[{"bidfloor":"1"}]})",
    R"({"imp":[{}],"device":{"geo":{"country":"unseen","utcoffset":60}},"ext":{"timestamp":1700000000000}})",
};

double next_uniform(uint64_t& state) {  // splitmix64
  uint64_t z = state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

// The arrays that a head borrows while its engine is built: complete trees of depth 4 over four columns.
struct HeadArrays {
  std::vector<int64_t> roots, column, true_child, false_child, true_is_leaf, false_is_leaf, missing_true;
  std::vector<uint8_t> mode;
  std::vector<double> threshold, leaf;
  std::vector<std::string_view> keys{"", "DEU", "USA", "com.example"};
  std::vector<double> values{0.0, 1.0, 2.0, 3.0};

  HeadArrays(int n_trees, uint64_t& random) {
    for (int tree = 0; tree < n_trees; ++tree) {
      const int64_t root = int64_t(column.size());
      roots.push_back(root);
      for (int64_t i = 0; i < 15; ++i) {
        column.push_back(int64_t(next_uniform(random) * 4.0));
        mode.push_back(0);
        threshold.push_back(column.back() < 2 ? next_uniform(random) * 400.0 : next_uniform(random) * 4.0);
        missing_true.push_back(next_uniform(random) < 0.5);
        for (auto* side : {&true_child, &false_child}) {
          const int64_t child = 2 * i + 1 + (side == &false_child);
          if (child < 15) {
            side->push_back(root + child);
          } else {
            side->push_back(int64_t(leaf.size()));
            leaf.push_back(next_uniform(random) - 0.5);
          }
          (side == &true_child ? true_is_leaf : false_is_leaf).push_back(child >= 15);
        }
      }
    }
  }

  template <class T>
  static Span<T> span(const std::vector<T>& v) {
    return {v.data(), v.size()};
  }

  HeadView view(double intercept) const {
    HeadView head;
    const auto number = [](int slot) { return ColumnView{false, slot, Rewrite::none, {}}; };
    const auto category = [&](int slot) {
      return ColumnView{true, slot, Rewrite::none, {slot, span(keys), span(values), kMissing}};
    };
    head.columns = {number(0), number(1), category(0), category(1)};
    head.has_trees = true;
    head.trees = {span(roots),         span(column),       span(mode), span(threshold), span(true_child), span(false_child),
                  span(true_is_leaf), span(false_is_leaf), span(missing_true), {}, span(leaf)};
    head.intercept = intercept;
    return head;
  }
};

// A model with its line items, and what they may bid: sorted, over requests and pacings.
struct InService {
  std::shared_ptr<Model> model = std::make_shared<Model>();
  std::vector<std::unique_ptr<LineItem>> lines;
  std::vector<double> possible;

  explicit InService(uint64_t seed) {
    const HeadArrays arrays[] = {{40, seed}, {12, seed}, {6, seed}, {8, seed}};
    const std::vector<HeadView> heads = {arrays[0].view(-2.0), arrays[1].view(0.5), arrays[2].view(0.5),
                                         arrays[3].view(-1.0)};
    model->engine = Engine::build(heads, 2, 2);
    model->extractor = std::make_unique<Extractor>(
        std::vector<Extractor::Source>{{"imp.banner.w", false, 0},
                                       {"derived.hour_of_day", false, 1},
                                       {"device.geo.country", true, 0},
                                       {"app.bundle", true, 1}},
        "ext.timestamp");
    model->n_numbers = model->n_categories = model->n_request_numbers = 2;
    model->win = {0.5, 1.0, 0.0, 1.3};
    model->heads = kPricingHeads | kCvrHead;
    model->n_heads = heads.size();
    model->currency = "USD";
    for (int i = 0; i < kLines; ++i) {
      auto& line = lines.emplace_back(std::make_unique<LineItem>());
      line->model = model;
      line->row = RowBuffer(*model->engine);
      line->value_per_click = 1.0 + i;
      line->value_per_conversion = i % 2;
      line->cap_cpm = 9.0;
    }
    possible.push_back(0.0);
    for (const auto& line : lines) {
      for (const double pacing : kPacings) {
        line->pacing_multiplier.store(pacing, std::memory_order_relaxed);
        for (const std::string& request : kRequests) possible.push_back(bid(request, *line));
      }
    }
    std::sort(possible.begin(), possible.end());
  }

  double bid(const std::string& request, const LineItem& line) const {
    Trace trace;
    decide<false>(*model, JsonRequest{request, 0}, line, trace, nullptr);
    return trace.decision.bid_cpm;
  }
};

std::shared_ptr<InService> g_in_service;
std::atomic<bool> g_stop{false};

void decide_forever(size_t number, uint64_t& n_decisions, uint64_t& n_wrong) {
  for (uint64_t i = number; !g_stop.load(std::memory_order_relaxed); ++i) {
    const std::shared_ptr<InService> taken = std::atomic_load(&g_in_service);
    const LineItem& line = *taken->lines[i % kLines];
    const std::string& request = kRequests[i / kLines % std::size(kRequests)];
    double bid;
    if (i % 5 == 0) {
      const auto line_at = [&](Py_ssize_t at) -> const LineItem& { return *taken->lines[size_t(at)]; };
      bid = best_of(*taken->model, JsonRequest{request, 0}, line_at, kLines, nullptr).bid_cpm;
    } else {
      bid = taken->bid(request, line);
    }
    ++n_decisions;
    n_wrong += !std::binary_search(taken->possible.begin(), taken->possible.end(), bid);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long n_swaps = argc > 1 ? std::atol(argv[1]) : 1000;
  std::shared_ptr<InService> models[] = {std::make_shared<InService>(1), std::make_shared<InService>(2)};
  std::atomic_store(&g_in_service, models[0]);
  uint64_t n_decisions[kThreads] = {}, n_wrong[kThreads] = {};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      uint64_t decided = 0, wrong = 0;
      decide_forever(i, decided, wrong);
      n_decisions[i] = decided;
      n_wrong[i] = wrong;
    });
  }
  for (long i = 0; i < n_swaps; ++i) {
    if (i % 500 == 0) models[i / 500 % 2] = std::make_shared<InService>(uint64_t(i));
    std::atomic_store(&g_in_service, models[i % 2]);
    models[i % 2]->lines[size_t(i) % kLines]->pacing_multiplier.store(kPacings[size_t(i) % std::size(kPacings)],
                                                                      std::memory_order_relaxed);
  }
  g_stop = true;
  uint64_t decisions = 0, wrong = 0;
  for (size_t i = 0; i < kThreads; ++i) {
    threads[i].join();
    decisions += n_decisions[i];
    wrong += n_wrong[i];
  }
  std::printf("%ld %llu %llu\n", n_swaps, (unsigned long long)decisions, (unsigned long long)wrong);
  return wrong != 0;
}
