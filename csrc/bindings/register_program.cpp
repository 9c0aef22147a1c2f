// Programs (core/program.h) as objects of Python, which are checked once, when they are made.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/names.h"
#include "bindings/operands.h"
#include "core/distributions/scale.h"
#include "cpu/draws.h"
#include "cpu/pointwise.h"
#include "cpu/program.h"

namespace py = pybind11;

namespace bsl {
namespace {

constexpr const char* kStepNames[] = {
#define BSL_NAME(name, type) #name,
    BSL_STEP_KINDS(BSL_NAME)
#undef BSL_NAME
};

constexpr const char* kActivationNames[] = {
#define BSL_NAME(name, least, most) #name,
    BSL_ACTIVATIONS(BSL_NAME)
#undef BSL_NAME
};

using Ints = std::vector<int32_t>;
using Addresses = std::vector<uintptr_t>;
// (for each call its seeds: those of the draws, then those that steps take; the stream of each)
using Seeds = std::pair<std::vector<uint64_t>, std::vector<uint64_t>>;
// (loc, raw_scale, parametrization, prior_loc, prior_scale)
using PyDraw = std::tuple<int32_t, int32_t, int32_t, double, double>;
// (kind, inputs, outputs, parameters, options, numbers)
using PyStep = std::tuple<std::string, Ints, Ints, Ints, Ints, std::vector<double>>;

int kind_of(const std::string& name) {
  const auto* found = std::find(std::begin(kStepNames), std::end(kStepNames), name);
  if (found == std::end(kStepNames))
    throw std::invalid_argument("no step is called '" + name + "'");
  return static_cast<int>(found - std::begin(kStepNames));
}

void check_places(const Ints& places, int32_t least, int64_t end, const std::string& what) {
  for (const int32_t place : places) {
    if (place < least || place >= end) throw std::invalid_argument(what + " out of range");
  }
}

// Sets the places of all gradients, and returns which tensors samples are drawn from.
std::vector<bool> place_gradients(Program& p) {
  std::vector<bool> drawn_from(p.tensors(), false);
  p.places.resize(p.sizes.size());
  const auto place = [&](size_t i) {
    p.places[i] = p.n_gradients;
    p.n_gradients += p.sizes[i];
  };
  for (size_t i = 0; i < p.draws.size(); ++i) {
    for (const int32_t source : {p.draws[i].loc, p.draws[i].raw_scale}) {
      if (drawn_from[source]) throw std::invalid_argument("draws: a parameter in two of them");
      drawn_from[source] = true;
    }
    place(p.draws[i].loc);
    p.places[p.tensors() + i] = p.places[p.draws[i].loc];
  }
  p.n_drawn = p.n_gradients;
  for (size_t i = 0; i < p.tensors(); ++i) {
    if (!drawn_from[i]) place(i);
  }
  p.n_parameters = p.n_gradients;
  for (const Draw& draw : p.draws) place(draw.raw_scale);
  return drawn_from;
}

// Finds the parameters whose gradients no step adds to.
void find_filled(Program& p) {
  std::vector<int> readers(p.sizes.size(), 0);
  for (const Step& step : p.steps) {
    for (const int32_t place : step.parameters) {
      if (place >= 0) ++readers[place];
    }
  }
  p.filled.reset(new bool[p.sizes.size()]());
  for (const Draw& draw : p.draws) p.filled[draw.loc] = p.filled[draw.raw_scale] = true;
  for (const Step& step : p.steps) {
    for (const int32_t place : step.parameters) {
      if (place >= 0 && readers[place] == 1) {
        p.filled[place] = BSL_SELECT(program_kernels).fills(step, place, p);
      }
    }
  }
}

// Whether dense layers are so large, on average, that tiles should share them.
bool pays_in_groups(const Program& p, int64_t least) {
  int64_t weights = 0, layers = 0;
  for (const Step& step : p.steps) {
    const int64_t own = BSL_SELECT(program_kernels).shared(step);
    weights += std::max<int64_t>(own, 0);
    layers += own >= 0 ? 1 : 0;
  }
  return layers > 0 && weights / layers >= least;
}

Program make_program(int32_t features, int32_t context, const std::vector<PyStep>& steps,
                     const Ints& results, const std::vector<int64_t>& sizes,
                     const std::vector<PyDraw>& draws, int32_t noises, int64_t least_in_groups,
                     double sign, double far) {
  Program p{};
  p.noises = noises;
  p.sign = sign;
  p.far = far;
  p.features = features;
  p.context = context;
  p.lanes = features + context;
  p.results = results;
  p.sizes = sizes;
  for (const auto& [loc, raw_scale, parametrization, prior_loc, prior_scale] : draws) {
    check_places({loc, raw_scale}, 0, static_cast<int64_t>(sizes.size()), "draws: parameters");
    check_places({parametrization}, 0, BSL_SELECT(normal_rsample_kernels).n_variants,
                 "draws: parametrization");
    if (sizes[loc] != sizes[raw_scale]) throw std::invalid_argument("draws: sizes differ");
    // Such scales may be negative, which every draw would have to look for.
    if (static_cast<Parametrization>(parametrization) == Parametrization::scale) {
      throw std::invalid_argument("draws: parametrization 'scale'");
    }
    p.draws.push_back({loc, raw_scale, parametrization, prior_loc, prior_scale});
  }
  for (const Draw& draw : p.draws) p.sizes.push_back(sizes[draw.loc]);
  const std::vector<bool> drawn_from = place_gradients(p);
  for (const auto& [name, inputs, outputs, parameters, options, numbers] : steps) {
    p.steps.push_back({kind_of(name), inputs, outputs, parameters, options, numbers});
    const Step& step = p.steps.back();
    check_places(inputs, 0, p.lanes, name + ": inputs");
    check_places(parameters, -1, static_cast<int64_t>(p.sizes.size()), name + ": parameters");
    for (const int32_t place : parameters) {
      if (place >= 0 && static_cast<size_t>(place) < p.tensors() && drawn_from[place]) {
        throw std::invalid_argument(name + ": a parameter that samples are drawn from");
      }
    }
    // New lanes, one after the other.
    for (const int32_t output : outputs) {
      if (output != p.lanes++) throw std::invalid_argument(name + ": outputs out of order");
    }
    if (const char* fault = BSL_SELECT(program_kernels).fault(step, p)) {
      throw std::invalid_argument(name + ": wrong " + fault);
    }
    p.scratch = std::max(p.scratch, BSL_SELECT(program_kernels).scratch(step));
  }
  check_places(results, 0, p.lanes, "results");
  find_filled(p);
  p.in_groups = pays_in_groups(p, least_in_groups);
  return p;
}

template <typename T>
std::vector<T*> pointers(const Addresses& addresses) {
  std::vector<T*> found;
  for (const uintptr_t address : addresses) found.push_back(static_cast<T*>(pointer(address)));
  return found;
}

// Whether the gradient of each parameter is wanted, from whether that of each tensor is.
std::unique_ptr<bool[]> flags_of(const Program& p, const std::vector<bool>& wanted) {
  std::unique_ptr<bool[]> flags(new bool[p.sizes.size()]);
  std::copy(wanted.begin(), wanted.end(), flags.get());
  for (size_t i = 0; i < p.draws.size(); ++i) {
    flags[p.tensors() + i] = wanted[p.draws[i].loc] || wanted[p.draws[i].raw_scale];
  }
  return flags;
}

// The table of a program's parameters for some draws of its weights, and memory for the samples.
// Samples whose gradients a step fills in may lie where these will be, in the row of all gradients:
// `grads`, if it is not null.
template <typename T>
class Table {
 public:
  Table(const Program& p, const Addresses& parameters, int64_t n_draws, T* grads = nullptr)
      : program_(p), n_draws_(n_draws), own_(pointers<T>(parameters)) {
    const auto in_place = [&](size_t i) { return grads != nullptr && p.filled[i]; };
    int64_t apart = 0;
    for (size_t i = p.tensors(); i < p.sizes.size(); ++i) apart += in_place(i) ? 0 : p.sizes[i];
    samples_.reset(new T[static_cast<size_t>(n_draws * apart)]);
    T* at = samples_.get();
    for (size_t i = p.tensors(); i < p.sizes.size(); ++i) {
      own_.push_back(in_place(i) ? grads + p.places[i] : at);
      at += in_place(i) ? 0 : n_draws * p.sizes[i];
    }
    all_.reserve(n_draws * own_.size());
    for (int64_t draw = 0; draw < n_draws; ++draw) {
      for (size_t i = 0; i < own_.size(); ++i) {
        all_.push_back(i < p.tensors() ? own_[i] : own_[i] + draw * p.sizes[i]);
      }
    }
  }

  // [draws, parameters]
  T* const* all() const { return all_.data(); }

  // Adds the divergence of all weights to `kl`; null: it is not wanted.
  void draw(const Seeds& seeds, double* kl) {
    draw_weights(program_, from(seeds, nullptr), n_draws_, kl);
  }

  Draws<T> from(const Seeds& seeds, const bool* wanted) const {
    return {own_.data(), wanted, seeds.first.data(), seeds.second.data()};
  }

 private:
  const Program& program_;
  const int64_t n_draws_;
  std::unique_ptr<T[]> samples_;
  std::vector<T*> own_, all_;
};

template <typename T, typename Run>
void forward(const Program& p, int64_t rows, int64_t samples, int64_t n_draws,
             const Addresses& parameters, const Seeds& seeds, uintptr_t x, uintptr_t context,
             uintptr_t value, uintptr_t log, const Run& run) {
  Table<T> table(p, parameters, n_draws);
  const ProgramForward<T> a{&p,
                            rows,
                            samples,
                            n_draws,
                            table.all(),
                            seeds.first.data(),
                            seeds.second.data(),
                            static_cast<T*>(pointer(x)),
                            static_cast<T*>(pointer(context)),
                            static_cast<T*>(pointer(value)),
                            static_cast<T*>(pointer(log))};
  py::gil_scoped_release release;
  table.draw(seeds, nullptr);
  run(a);
}

void check_rows(const Program& p, int64_t rows, int64_t samples) {
  if (rows < 1) throw std::invalid_argument("rows: at least one is needed");
  if (samples < 1 || rows % samples != 0) {
    throw std::invalid_argument("samples: rows are not as many for each example");
  }
  // The noise of a step is that of a row, and rows would be in another order.
  if (samples > 1 && p.noises > 0) throw std::invalid_argument("samples: steps draw noise");
}

void check_count(const Program& p, const Addresses& parameters) {
  if (parameters.size() != p.tensors()) throw std::invalid_argument("number of parameters");
}

void check_seeds(const Program& p, const Seeds& seeds, size_t calls) {
  if (seeds.first.size() != calls * p.seeds() || seeds.second.size() != p.seeds()) {
    throw std::invalid_argument("number of seeds or streams");
  }
}

void program_forward(const Program& p, bool is_double, int64_t rows, int64_t samples,
                     int64_t n_draws, const Addresses& parameters, const Seeds& seeds, uintptr_t x,
                     uintptr_t context, uintptr_t value, uintptr_t log) {
  check_count(p, parameters);
  check_rows(p, rows, samples);
  check_seeds(p, seeds, 1);
  if (n_draws < 1) throw std::invalid_argument("n_draws: at least one is needed");
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  if (is_double) {
    forward<double>(p, rows, samples, n_draws, parameters, seeds, x, context, value, log,
                    kernels.forward_double);
  } else {
    forward<float>(p, rows, samples, n_draws, parameters, seeds, x, context, value, log,
                   kernels.forward_float);
  }
}

// What a backward pass has beside the program: addresses, of which 0 is null.
struct Backward {
  int64_t rows, samples;
  const Addresses& parameters;
  const Seeds& seeds;
  uintptr_t x, context, grad_value, grad_log;
  double grad_each, grad_kl;
  uintptr_t grad_x, grad_context, grad_parameters;
  const std::vector<bool>& wanted;
  uintptr_t added = 0, bound = 0, weights = 0;
};

// `log` gets the logarithms, and `kl` the divergence of the weights; each may be null.
template <typename T, typename Run>
void backward(const Program& p, const Backward& b, T* log, double* kl, const Run& run) {
  const std::unique_ptr<bool[]> flags = flags_of(p, b.wanted);
  const int64_t samples = b.added == 0 ? 0 : b.samples;
  const int64_t chunks = program_chunks(p, b.rows, samples);
  // Not initialised: the kernels do it, on all threads.
  const std::unique_ptr<T[]> sums(chunks > 1 ? new T[static_cast<size_t>(chunks * p.n_gradients)]
                                             : nullptr);
  T* grads = static_cast<T*>(pointer(b.grad_parameters));
  // In one group, a layer's weights have been read when their gradients are written.
  const bool one_group = p.in_groups && b.rows <= program_rows_together(p, samples);
  Table<T> table(p, b.parameters, 1, one_group ? grads : nullptr);
  const ProgramBackward<T> a{&p,
                             b.rows,
                             b.samples,
                             table.all(),
                             b.seeds.first.data(),
                             b.seeds.second.data(),
                             static_cast<T*>(pointer(b.x)),
                             static_cast<T*>(pointer(b.context)),
                             log,
                             static_cast<T*>(pointer(b.grad_value)),
                             static_cast<T*>(pointer(b.grad_log)),
                             static_cast<T>(b.grad_each),
                             static_cast<T*>(pointer(b.added)),
                             static_cast<T*>(pointer(b.bound)),
                             static_cast<T*>(pointer(b.weights)),
                             static_cast<T*>(pointer(b.grad_x)),
                             static_cast<T*>(pointer(b.grad_context)),
                             sums.get(),
                             grads,
                             flags.get()};
  table.draw(b.seeds, kl);
  run(a);
  pull_back_weights(p, table.from(b.seeds, flags.get()), grads, b.grad_kl);
}

void check(const Program& p, const Backward& b) {
  check_count(p, b.parameters);
  check_rows(p, b.rows, b.samples);
  check_seeds(p, b.seeds, 1);
  if (b.wanted.size() != p.tensors()) throw std::invalid_argument("number of parameters");
}

void program_backward(const Program& p, bool is_double, int64_t rows, const Addresses& parameters,
                      const Seeds& seeds, uintptr_t x, uintptr_t context, uintptr_t log,
                      uintptr_t grad_value, uintptr_t grad_log, double grad_each, double grad_kl,
                      uintptr_t grad_x, uintptr_t grad_context, uintptr_t grad_parameters,
                      const std::vector<bool>& wanted) {
  const Backward b{rows,
                   1,
                   parameters,
                   seeds,
                   x,
                   context,
                   grad_value,
                   grad_log,
                   grad_each,
                   grad_kl,
                   grad_x,
                   grad_context,
                   grad_parameters,
                   wanted};
  check(p, b);
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  py::gil_scoped_release release;
  if (is_double) {
    backward(p, b, static_cast<double*>(pointer(log)), nullptr, kernels.backward_double);
  } else {
    backward(p, b, static_cast<float*>(pointer(log)), nullptr, kernels.backward_float);
  }
}

// Bounds of examples and the weights of their samples, see ProgramBounds.
void program_bounds(bool is_double, int64_t samples, int64_t examples, uintptr_t log,
                    uintptr_t added, uintptr_t bound, uintptr_t weights) {
  if (samples < 1 || samples > kMostSamples) throw std::invalid_argument("samples of a bound");
  const auto call = [&](auto zero, const auto& run) {
    using T = decltype(zero);
    run(ProgramBounds<T>{samples, examples, static_cast<T*>(pointer(log)),
                         static_cast<T*>(pointer(added)), static_cast<T*>(pointer(bound)),
                         static_cast<T*>(pointer(weights))});
  };
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  py::gil_scoped_release release;
  if (is_double) {
    call(0.0, kernels.bounds_double);
  } else {
    call(0.0F, kernels.bounds_float);
  }
}

// The same with the pass that gives the logarithms, and gradients: those of the bounds are
// `grad_bound`, or `grad_each` if it is null.
void program_bound(const Program& p, bool is_double, int64_t rows, int64_t samples,
                   const Addresses& parameters, uintptr_t x, uintptr_t context, uintptr_t added,
                   uintptr_t bound, uintptr_t weights, uintptr_t grad_bound, double grad_each,
                   uintptr_t grad_x, uintptr_t grad_parameters, const std::vector<bool>& wanted) {
  const Seeds seeds;
  const Backward b{rows,       samples,   parameters, seeds,  x, context,         0,
                   grad_bound, grad_each, 0,          grad_x, 0, grad_parameters, wanted,
                   added,      bound,     weights};
  check(p, b);
  if (samples > kMostSamples) throw std::invalid_argument("samples of a bound");
  // Forward passes would take far rows as improbable, and this one would not.
  if (p.sign != 1 || p.far < std::numeric_limits<double>::infinity()) {
    throw std::invalid_argument("sign or far of a program with bounds");
  }
  if (added == 0 || bound == 0 || weights == 0) throw std::invalid_argument("addresses of a bound");
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  py::gil_scoped_release release;
  if (is_double) {
    backward(p, b, static_cast<double*>(nullptr), nullptr, kernels.backward_double);
  } else {
    backward(p, b, static_cast<float*>(nullptr), nullptr, kernels.backward_float);
  }
}

// Returns the mean of the rows' negative logarithms with `kl_weight` of the divergence, whose
// gradients are written.
double program_loss(const Program& p, bool is_double, int64_t rows, const Addresses& parameters,
                    const Seeds& seeds, uintptr_t x, uintptr_t context, double kl_weight,
                    uintptr_t grad_x, uintptr_t grad_context, uintptr_t grad_parameters,
                    const std::vector<bool>& wanted) {
  const double each = -1.0 / static_cast<double>(rows);
  const Backward b{rows,      1,      parameters,   seeds,           x,     context, 0, 0, each,
                   kl_weight, grad_x, grad_context, grad_parameters, wanted};
  check(p, b);
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  py::gil_scoped_release release;
  const auto loss = [&](auto* log, const auto& run) {
    double kl = 0, total = 0;
    backward(p, b, log, &kl, run);
    for (int64_t i = 0; i < rows; ++i) total += static_cast<double>(log[i]);
    return kl_weight * kl + each * total;
  };
  if (is_double) {
    const std::unique_ptr<double[]> log(new double[static_cast<size_t>(rows)]);
    return loss(log.get(), kernels.backward_double);
  }
  const std::unique_ptr<float[]> log(new float[static_cast<size_t>(rows)]);
  return loss(log.get(), kernels.backward_float);
}

// For each step, the sum of its rows' negative logarithms, and the divergence.
using Losses = std::pair<std::vector<double>, std::vector<double>>;

template <typename T, typename Run>
Losses train(const Program& p, int64_t rows, int64_t batch_rows, uintptr_t order, uintptr_t x,
             uintptr_t context, const Addresses& parameters, const std::vector<bool>& wanted,
             const Addresses& means, const Addresses& mean_squares,
             const OptimizerNumbers& optimizer, const std::vector<double>& weight_decays,
             double clip, const std::vector<double>& rates, int64_t steps_before,
             const Seeds& seeds, const std::vector<double>& kl_weights, const Run& run) {
  const Table<T> table(p, parameters, 1);
  const std::vector<T*> first = pointers<T>(means), second = pointers<T>(mean_squares);
  const std::unique_ptr<bool[]> flags = flags_of(p, wanted);
  const auto chunks = [&](int64_t n) { return n == 0 ? 0 : program_chunks(p, n); };
  const int64_t most = std::max(chunks(std::min(rows, batch_rows)), chunks(rows % batch_rows));
  const std::unique_ptr<T[]> sums(new T[static_cast<size_t>(most * p.n_gradients)]);
  std::vector<double> partial(
      static_cast<size_t>(std::max(2 * most, program_training_parts(p.n_gradients))));
  const std::unique_ptr<T[]> factors(new T[static_cast<size_t>(3 * p.n_drawn)]);
  std::vector<double> draw_partial(static_cast<size_t>(training_draw_shares(p)));
  Losses losses{std::vector<double>(rates.size()), std::vector<double>(rates.size())};
  const ProgramTraining<T> a{&p,
                             rows,
                             batch_rows,
                             static_cast<int64_t*>(pointer(order)),
                             static_cast<T*>(pointer(x)),
                             static_cast<T*>(pointer(context)),
                             table.all(),
                             flags.get(),
                             first.data(),
                             second.data(),
                             optimizer,
                             weight_decays.data(),
                             clip,
                             rates.data(),
                             steps_before,
                             seeds.first.data(),
                             seeds.second.data(),
                             kl_weights.data(),
                             factors.get(),
                             draw_partial.data(),
                             sums.get(),
                             partial.data(),
                             losses.first.data(),
                             losses.second.data()};
  py::gil_scoped_release release;
  run(a);
  return losses;
}

Losses program_train(const Program& p, bool is_double, int64_t rows, int64_t batch_rows,
                     uintptr_t order, uintptr_t x, uintptr_t context, const Addresses& parameters,
                     const std::vector<bool>& wanted, const Addresses& means,
                     const Addresses& mean_squares, const std::string& optimizer, double decay,
                     double decay_square, double epsilon, const std::vector<double>& weight_decays,
                     double clip, const std::vector<double>& rates, int64_t steps_before,
                     const Seeds& seeds, const std::vector<double>& kl_weights) {
  check_count(p, parameters);
  check_count(p, means);
  check_count(p, mean_squares);
  check_seeds(p, seeds, rates.size());
  if (p.sign != 1) throw std::invalid_argument("sign of a program that is trained");
  if (wanted.size() != p.tensors()) throw std::invalid_argument("number of parameters");
  if (weight_decays.size() != p.tensors()) {
    throw std::invalid_argument("number of weight decays");
  }
  if (batch_rows < 1) throw std::invalid_argument("batch_rows");
  if (static_cast<int64_t>(rates.size()) != (rows + batch_rows - 1) / batch_rows) {
    throw std::invalid_argument("number of learning rates");
  }
  if (kl_weights.size() != rates.size()) throw std::invalid_argument("number of kl_weights");
  const auto* name = std::find(std::begin(kOptimizerNames), std::end(kOptimizerNames), optimizer);
  if (name == std::end(kOptimizerNames)) {
    throw std::invalid_argument("no optimizer is called '" + optimizer + "'");
  }
  const auto kind = static_cast<Optimizer>(name - kOptimizerNames);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const bool lacks_mean = needs_mean(kind) && means[i] == 0;
    const bool lacks_square = needs_mean_square(kind) && mean_squares[i] == 0;
    if (wanted[i] && p.sizes[i] > 0 && (lacks_mean || lacks_square)) {
      throw std::invalid_argument(optimizer + ": what it remembers of parameter " +
                                  std::to_string(i) + " is missing");
    }
  }
  const OptimizerNumbers numbers{kind, decay, decay_square, epsilon};
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  if (is_double) {
    return train<double>(p, rows, batch_rows, order, x, context, parameters, wanted, means,
                         mean_squares, numbers, weight_decays, clip, rates, steps_before, seeds,
                         kl_weights, kernels.train_double);
  }
  return train<float>(p, rows, batch_rows, order, x, context, parameters, wanted, means,
                      mean_squares, numbers, weight_decays, clip, rates, steps_before, seeds,
                      kl_weights, kernels.train_float);
}

// What a program was made from is looked at before each call. Python takes four times as long.

bool have_entries(const py::list& dicts, const py::list& names, const py::list& values) {
  for (size_t i = 0; i < dicts.size(); ++i) {
    PyObject* const name = PyList_GET_ITEM(names.ptr(), i);
    PyObject* const found = PyDict_GetItemWithError(PyList_GET_ITEM(dicts.ptr(), i), name);
    if (found == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    if ((found == nullptr ? Py_None : found) != PyList_GET_ITEM(values.ptr(), i)) return false;
  }
  return true;
}

bool have_sizes(const py::list& dicts, const std::vector<size_t>& sizes) {
  for (size_t i = 0; i < dicts.size(); ++i) {
    const Py_ssize_t found = PyDict_Size(PyList_GET_ITEM(dicts.ptr(), i));
    if (static_cast<size_t>(found) != sizes[i]) return false;
  }
  return true;
}

bool are_of_types(const py::list& references, const py::list& types) {
  for (size_t i = 0; i < references.size(); ++i) {
    const py::object found = references[i]();
    if (py::type::handle_of(found).ptr() != PyList_GET_ITEM(types.ptr(), i)) return false;
  }
  return true;
}

}  // namespace

void register_program(py::module_& m) {
  m.attr("ACTIVATIONS") = tuple_of(kActivationNames);
  m.attr("OPTIMIZERS") = tuple_of(kOptimizerNames);
  m.def("have_entries", &have_entries);
  m.def("have_sizes", &have_sizes);
  m.def("are_of_types", &are_of_types);
  m.def("bounds", &program_bounds);
  m.attr("MOST_SAMPLES") = kMostSamples;
  py::class_<Program>(m, "Program")
      .def(py::init(&make_program), py::arg("features"), py::arg("context"), py::arg("steps"),
           py::arg("results"), py::arg("sizes"), py::arg("draws") = std::vector<PyDraw>(),
           py::arg("noises") = 0, py::arg("least_in_groups") = std::numeric_limits<int64_t>::max(),
           py::arg("sign") = 1.0, py::arg("far") = std::numeric_limits<double>::infinity())
      .def_readonly("lanes", &Program::lanes)
      .def_readonly("n_parameters", &Program::n_parameters)
      .def_readonly("n_gradients", &Program::n_gradients)
      .def("forward", &program_forward)
      .def("backward", &program_backward)
      .def("bound", &program_bound)
      .def("loss", &program_loss)
      .def("train", &program_train);
}

}  // namespace bsl
