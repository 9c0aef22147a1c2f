// Programs (core/program.h) as objects of Python, which are checked once, when they are made.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/operands.h"
#include "cpu/program.h"

namespace py = pybind11;

namespace bsl {
namespace {

constexpr const char* kStepNames[] = {
#define BSL_NAME(name, type) #name,
    BSL_STEP_KINDS(BSL_NAME)
#undef BSL_NAME
};

using Ints = std::vector<int32_t>;
using Addresses = std::vector<uintptr_t>;
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

Program make_program(int32_t features, int32_t context, const std::vector<PyStep>& steps,
                     const Ints& results, const std::vector<int64_t>& sizes) {
  Program p{};
  p.features = features;
  p.context = context;
  p.lanes = features + context;
  p.results = results;
  p.sizes = sizes;
  for (const int64_t size : sizes) {
    p.places.push_back(p.n_parameters);
    p.n_parameters += size;
  }
  for (const auto& [name, inputs, outputs, parameters, options, numbers] : steps) {
    p.steps.push_back({kind_of(name), inputs, outputs, parameters, options, numbers});
    const Step& step = p.steps.back();
    check_places(inputs, 0, p.lanes, name + ": inputs");
    check_places(parameters, -1, static_cast<int64_t>(sizes.size()), name + ": parameters");
    // New lanes, one after the other.
    for (const int32_t output : outputs) {
      if (output != p.lanes++) throw std::invalid_argument(name + ": outputs out of order");
    }
    if (const char* fault = BSL_SELECT(program_kernels).fault(step, p)) {
      throw std::invalid_argument(name + ": wrong " + fault);
    }
    p.scratch = std::max(p.scratch, BSL_SELECT(program_kernels).scratch(step));
  }
  if (static_cast<int32_t>(results.size()) != features) {
    throw std::invalid_argument("as many results as features are needed");
  }
  check_places(results, 0, p.lanes, "results");
  return p;
}

template <typename T>
std::vector<T*> pointers(const Addresses& addresses) {
  std::vector<T*> found;
  for (const uintptr_t address : addresses) found.push_back(static_cast<T*>(pointer(address)));
  return found;
}

// std::vector<bool> has no array of them.
std::unique_ptr<bool[]> flags_of(const std::vector<bool>& wanted) {
  std::unique_ptr<bool[]> flags(new bool[wanted.size()]);
  std::copy(wanted.begin(), wanted.end(), flags.get());
  return flags;
}

template <typename T, typename Run>
void forward(const Program& p, int64_t rows, const Addresses& parameters, uintptr_t x,
             uintptr_t context, uintptr_t value, uintptr_t log, const Run& run) {
  const std::vector<T*> found = pointers<T>(parameters);
  const ProgramForward<T> a{&p,
                            rows,
                            found.data(),
                            static_cast<T*>(pointer(x)),
                            static_cast<T*>(pointer(context)),
                            static_cast<T*>(pointer(value)),
                            static_cast<T*>(pointer(log))};
  py::gil_scoped_release release;
  run(a);
}

void check_rows(int64_t rows) {
  if (rows < 1) throw std::invalid_argument("rows: at least one is needed");
}

void check_count(const Program& p, const Addresses& parameters) {
  if (parameters.size() != p.sizes.size()) throw std::invalid_argument("number of parameters");
}

void program_forward(const Program& p, bool is_double, int64_t rows, const Addresses& parameters,
                     uintptr_t x, uintptr_t context, uintptr_t value, uintptr_t log) {
  check_count(p, parameters);
  check_rows(rows);
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  if (is_double) {
    forward<double>(p, rows, parameters, x, context, value, log, kernels.forward_double);
  } else {
    forward<float>(p, rows, parameters, x, context, value, log, kernels.forward_float);
  }
}

template <typename T, typename Run>
void backward(const Program& p, int64_t rows, const Addresses& parameters, uintptr_t x,
              uintptr_t context, uintptr_t log, uintptr_t grad_value, uintptr_t grad_log,
              uintptr_t grad_x, uintptr_t grad_context, uintptr_t grad_parameters,
              const std::vector<bool>& wanted, const Run& run) {
  const std::vector<T*> found = pointers<T>(parameters);
  const std::unique_ptr<bool[]> flags = flags_of(wanted);
  const int64_t chunk_rows = program_chunk_rows(rows, p.n_parameters);
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  // Not initialised: the kernels do it, on all threads.
  const std::unique_ptr<T[]> sums(new T[static_cast<size_t>(chunks * p.n_parameters)]);
  const ProgramBackward<T> a{&p,
                             rows,
                             found.data(),
                             static_cast<T*>(pointer(x)),
                             static_cast<T*>(pointer(context)),
                             static_cast<T*>(pointer(log)),
                             static_cast<T*>(pointer(grad_value)),
                             static_cast<T*>(pointer(grad_log)),
                             static_cast<T*>(pointer(grad_x)),
                             static_cast<T*>(pointer(grad_context)),
                             sums.get(),
                             static_cast<T*>(pointer(grad_parameters)),
                             flags.get()};
  py::gil_scoped_release release;
  run(a);
}

void program_backward(const Program& p, bool is_double, int64_t rows, const Addresses& parameters,
                      uintptr_t x, uintptr_t context, uintptr_t log, uintptr_t grad_value,
                      uintptr_t grad_log, uintptr_t grad_x, uintptr_t grad_context,
                      uintptr_t grad_parameters, const std::vector<bool>& wanted) {
  check_count(p, parameters);
  check_rows(rows);
  if (wanted.size() != p.sizes.size()) throw std::invalid_argument("number of parameters");
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  if (is_double) {
    backward<double>(p, rows, parameters, x, context, log, grad_value, grad_log, grad_x,
                     grad_context, grad_parameters, wanted, kernels.backward_double);
  } else {
    backward<float>(p, rows, parameters, x, context, log, grad_value, grad_log, grad_x,
                    grad_context, grad_parameters, wanted, kernels.backward_float);
  }
}

template <typename T, typename Run>
std::vector<double> train(const Program& p, int64_t rows, int64_t batch_rows, uintptr_t order,
                          uintptr_t x, uintptr_t context, const Addresses& parameters,
                          const std::vector<bool>& wanted, const Addresses& means,
                          const Addresses& mean_squares, const OptimizerNumbers& optimizer,
                          double clip, const std::vector<double>& rates, int64_t steps_before,
                          const Run& run) {
  const std::vector<T*> found = pointers<T>(parameters);
  const std::vector<T*> first = pointers<T>(means), second = pointers<T>(mean_squares);
  const std::unique_ptr<bool[]> flags = flags_of(wanted);
  const auto chunks = [&](int64_t n) {
    const int64_t chunk_rows = program_chunk_rows(n, p.n_parameters);
    return n == 0 ? 0 : (n + chunk_rows - 1) / chunk_rows;
  };
  const int64_t most = std::max(chunks(std::min(rows, batch_rows)), chunks(rows % batch_rows));
  const std::unique_ptr<T[]> sums(new T[static_cast<size_t>(most * p.n_parameters)]);
  std::vector<double> partial(
      static_cast<size_t>(std::max(most, program_training_parts(p.n_parameters))));
  std::vector<double> losses(rates.size());
  const ProgramTraining<T> a{&p,
                             rows,
                             batch_rows,
                             static_cast<int64_t*>(pointer(order)),
                             static_cast<T*>(pointer(x)),
                             static_cast<T*>(pointer(context)),
                             found.data(),
                             flags.get(),
                             first.data(),
                             second.data(),
                             optimizer,
                             clip,
                             rates.data(),
                             steps_before,
                             sums.get(),
                             partial.data(),
                             losses.data()};
  py::gil_scoped_release release;
  run(a);
  return losses;
}

std::vector<double> program_train(const Program& p, bool is_double, int64_t rows,
                                  int64_t batch_rows, uintptr_t order, uintptr_t x,
                                  uintptr_t context, const Addresses& parameters,
                                  const std::vector<bool>& wanted, const Addresses& means,
                                  const Addresses& mean_squares, const std::string& optimizer,
                                  double decay, double decay_square, double epsilon,
                                  double weight_decay, double clip,
                                  const std::vector<double>& rates, int64_t steps_before) {
  check_count(p, parameters);
  check_count(p, means);
  check_count(p, mean_squares);
  if (wanted.size() != p.sizes.size()) throw std::invalid_argument("number of parameters");
  if (batch_rows < 1) throw std::invalid_argument("batch_rows");
  if (static_cast<int64_t>(rates.size()) != (rows + batch_rows - 1) / batch_rows) {
    throw std::invalid_argument("number of learning rates");
  }
  const auto* name = std::find(std::begin(kOptimizerNames), std::end(kOptimizerNames), optimizer);
  if (name == std::end(kOptimizerNames)) {
    throw std::invalid_argument("no optimizer is called '" + optimizer + "'");
  }
  const auto kind = static_cast<Optimizer>(name - kOptimizerNames);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const bool lacks_mean = needs_mean(kind) && means[i] == 0;
    const bool lacks_square = needs_mean_square(kind) && mean_squares[i] == 0;
    if (wanted[i] && (lacks_mean || lacks_square)) {
      throw std::invalid_argument(optimizer + ": what it remembers of parameter " +
                                  std::to_string(i) + " is missing");
    }
  }
  const OptimizerNumbers numbers{kind, decay, decay_square, epsilon, weight_decay};
  const ProgramKernels& kernels = BSL_SELECT(program_kernels);
  if (is_double) {
    return train<double>(p, rows, batch_rows, order, x, context, parameters, wanted, means,
                         mean_squares, numbers, clip, rates, steps_before, kernels.train_double);
  }
  return train<float>(p, rows, batch_rows, order, x, context, parameters, wanted, means,
                      mean_squares, numbers, clip, rates, steps_before, kernels.train_float);
}

}  // namespace

void register_program(py::module_& m) {
  py::class_<Program>(m, "Program")
      .def(py::init(&make_program), py::arg("features"), py::arg("context"), py::arg("steps"),
           py::arg("results"), py::arg("sizes"))
      .def_readonly("lanes", &Program::lanes)
      .def_readonly("n_parameters", &Program::n_parameters)
      .def("forward", &program_forward)
      .def("backward", &program_backward)
      .def("train", &program_train);
}

}  // namespace bsl
