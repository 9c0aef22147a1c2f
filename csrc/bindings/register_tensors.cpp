// Reads what a call must know of torch's tensors, without torch's headers.
//
// torch.Tensor has a table of C functions (DLPack 1.3, https://github.com/dmlc/dlpack). One of them
// says in 20 ns what four attributes say in 0.4 us.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "bindings/tensors.h"
#include "cpu/parallel.h"
#include "cpu/within.h"

namespace py = pybind11;

namespace bsl {
namespace {

// DLPack's numbers.
constexpr int32_t kCpu = 1;
constexpr uint8_t kFloat = 2, kComplex = 5;

// DLPack's struct of this name.
struct DLTensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  uint8_t dtype_kind;
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  int64_t* sizes;
  int64_t* strides;
  uint64_t byte_offset;

  bool has_dtype_of(const DLTensor& other) const {
    return dtype_kind == other.dtype_kind && dtype_bits == other.dtype_bits;
  }
  bool has_shape(const int64_t* begin, const int64_t* end) const {
    return std::equal(sizes, sizes + ndim, begin, end);
  }
  void* address() const { return static_cast<char*>(data) + byte_offset; }
  bool is_native() const { return dtype_kind == kFloat && (dtype_bits == 32 || dtype_bits == 64); }
  TensorView view() const {
    return {address(), ndim, sizes, strides, dtype_bits == 64, is_native()};
  }
};

// The beginning of DLPack's struct of this name.
struct DLPackExchangeAPI {
  uint32_t major_version;
  uint32_t minor_version;
  void* previous;
  void* allocate;
  void* managed_tensor_from_object;
  void* object_from_managed_tensor;
  int (*tensor_from_object)(void* object, DLTensor* out);
};

// Set once, when the package is imported.
const DLPackExchangeAPI* api = nullptr;
PyTypeObject* tensor_type = nullptr;
PyTypeObject* parameter_type = nullptr;
PyObject* is_neg = nullptr;
PyObject* empty_like = nullptr;
PyObject* new_empty = nullptr;

// Whether torch has the table. Else nothing here can be used.
bool set_tensor_types(const py::type& tensor, const py::type& parameter) {
  const py::object capsule = py::getattr(tensor, "__dlpack_c_exchange_api__", py::none());
  constexpr const char* kName = "dlpack_exchange_api";
  if (!PyCapsule_IsValid(capsule.ptr(), kName)) return false;
  const auto* found =
      static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), kName));
  if (found->major_version != 1 || found->tensor_from_object == nullptr) return false;
  is_neg = py::object(tensor.attr("is_neg")).release().ptr();
  new_empty = py::object(tensor.attr("new_empty")).release().ptr();
  empty_like = py::object(py::module_::import("torch").attr("empty_like")).release().ptr();
  tensor_type = reinterpret_cast<PyTypeObject*>(tensor.inc_ref().ptr());
  parameter_type = reinterpret_cast<PyTypeObject*>(parameter.inc_ref().ptr());
  api = found;
  return true;
}

// Functions of torch without arguments, and modules with flags. Set once, as above.
struct Watchers {
  PyObject* transforms;
  PyObject* modes;
  PyObject* tracing;
  PyObject* compiler;
  PyObject* forward_ad;
};
Watchers watchers{};

void set_watchers(py::object transforms, py::object modes, py::object tracing, py::object compiler,
                  py::object forward_ad) {
  watchers = {transforms.release().ptr(), modes.release().ptr(), tracing.release().ptr(),
              compiler.release().ptr(), forward_ad.release().ptr()};
}

py::object owned(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

bool returns_true(PyObject* function) {
  const int found = PyObject_IsTrue(owned(PyObject_CallNoArgs(function)).ptr());
  if (found < 0) throw py::error_already_set();
  return found != 0;
}

// Whether torch runs op by op: no compiler, transform, dispatch mode, tracing or forward-mode
// differentiation is active. In a rule for vmap the transform still is.
bool is_unwatched(bool in_rule) {
  static PyObject* const compiling = PyUnicode_InternFromString("_is_compiling_flag");
  static PyObject* const level = PyUnicode_InternFromString("_current_level");
  const Watchers& w = watchers;
  return owned(PyObject_GetAttr(w.compiler, compiling)).ptr() == Py_False &&
         (in_rule || !returns_true(w.transforms)) && !returns_true(w.modes) &&
         !returns_true(w.tracing) && owned(PyObject_GetAttr(w.forward_ad, level)).cast<int>() < 0;
}

// What the tensors of a call have in common. Each level includes the one before.
constexpr int kNothing = 0;
constexpr int kPlain = 1;     // plain memory on the CPU, or None
constexpr int kOneDType = 2;  // float32 or float64 throughout, and none is None
constexpr int kOneShape = 3;

// Whether `object` is a tensor of plain memory on the CPU. Others (subclasses, batches of vmap,
// lazily negated ones, lazy zeros, sparse ones) are for torch to look at.
bool is_plain(py::handle object, DLTensor& tensor) {
  PyObject* const o = object.ptr();
  if (Py_TYPE(o) != tensor_type && Py_TYPE(o) != parameter_type) return false;
  if (api->tensor_from_object(o, &tensor) != 0) {  // one without memory of its own
    PyErr_Clear();
    return false;
  }
  const int64_t* const end = tensor.sizes + tensor.ndim;
  if (tensor.device_type != kCpu || tensor.dtype_kind == kComplex ||
      (tensor.data == nullptr && std::find<const int64_t*>(tensor.sizes, end, 0) == end)) {
    return false;
  }
  const auto negated = py::reinterpret_steal<py::object>(PyObject_CallOneArg(is_neg, o));
  if (!negated) PyErr_Clear();
  return negated.ptr() == Py_False;
}

bool is_tensor(py::handle object) {
  return tensor_type != nullptr && PyObject_TypeCheck(object.ptr(), tensor_type) != 0;
}

// What kernels see of a tensor that torch has looked at.
DLTensor read(py::handle object) {
  if (!is_tensor(object)) throw std::invalid_argument("not a tensor");
  DLTensor tensor;
  if (api->tensor_from_object(object.ptr(), &tensor) != 0) throw py::error_already_set();
  return tensor;
}

int in_common(const py::tuple& tensors) {
  // In a forked process torch's own ops around the kernels need a guard.
  if (!has_torch_threads()) return kNothing;
  int found = kOneShape;
  DLTensor first{};
  bool any = false;
  for (const py::handle item : tensors) {
    if (item.is_none()) {
      found = kPlain;
      continue;
    }
    DLTensor view;
    if (!is_plain(item, view)) return kNothing;
    if (!any) first = view;
    any = true;
    if (!view.is_native() || !view.has_dtype_of(first)) {
      found = kPlain;
    } else if (found == kOneShape && !view.has_shape(first.sizes, first.sizes + first.ndim)) {
      found = kOneDType;
    }
  }
  return found;
}

// Whether a tensor is one of plain contiguous numbers, and all of these lie in an interval.
bool all_within(py::handle item, double low, double high) {
  DLTensor tensor;
  if (!has_torch_threads() || tensor_type == nullptr || !is_plain(item, tensor)) return false;
  if (!tensor.is_native() || !tensor.view().is_contiguous()) return false;
  const int64_t n = tensor.view().numel();
  py::gil_scoped_release release;
  if (tensor.dtype_bits == 64) {
    return BSL_SELECT(within_kernels)
        .within_double(static_cast<const double*>(tensor.address()), n, low, high);
  }
  return BSL_SELECT(within_kernels)
      .within_float(static_cast<const float*>(tensor.address()), n, static_cast<float>(low),
                    static_cast<float>(high));
}

}  // namespace

bool TensorView::is_contiguous() const {
  int64_t expected = 1;
  for (int d = ndim - 1; d >= 0; --d) {
    if (sizes[d] != 1 && strides[d] != expected) return false;
    expected *= sizes[d];
  }
  return true;
}

TensorView view_of(py::handle tensor) { return read(tensor).view(); }

py::object room_for(const std::vector<int64_t>& sizes, py::handle like) {
  const TensorView seen = view_of(like);
  PyObject* made = nullptr;
  if (seen.has_sizes(sizes) && seen.is_contiguous()) {
    made = PyObject_CallOneArg(empty_like, like.ptr());
  } else {
    py::tuple shape(sizes.size());
    for (size_t d = 0; d < sizes.size(); ++d) shape[d] = py::int_(sizes[d]);
    made = PyObject_CallFunctionObjArgs(new_empty, like.ptr(), shape.ptr(), nullptr);
  }
  return owned(made);
}

PyOperand operand_of(py::handle item, const std::vector<int64_t>& sizes) {
  if (!is_tensor(item)) return item.cast<PyOperand>();
  return operand_of(view_of(item), sizes);
}

PyOperand operand_of(const TensorView& tensor, const std::vector<int64_t>& sizes) {
  PyOperand result;
  result.operand.data = tensor.data;
  if (tensor.has_sizes(sizes) && tensor.is_contiguous()) {
    result.operand.kind = Operand::Kind::contiguous;
    return result;
  }
  result.operand.kind = Operand::Kind::strided;
  const size_t missing = sizes.size() - static_cast<size_t>(tensor.ndim);
  if (missing > sizes.size()) throw std::invalid_argument("operand of more dimensions");
  result.strides.assign(sizes.size(), 0);
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.sizes[d] == 1) continue;
    if (tensor.sizes[d] != sizes[missing + d])
      throw std::invalid_argument("operand of another shape");
    result.strides[missing + d] = tensor.strides[d];
  }
  return result;
}

PlainNumbers plain_numbers(py::handle item) {
  const DLTensor tensor = read(item);
  if (!tensor.is_native() || !tensor.view().is_contiguous()) {
    throw std::invalid_argument("not contiguous numbers of float32 or float64");
  }
  return {tensor.address(), tensor.view().numel(), tensor.dtype_bits == 64};
}

std::vector<PyOperand> operands_of(const py::sequence& items, const std::vector<int64_t>& sizes) {
  std::vector<PyOperand> result;
  result.reserve(items.size());
  for (const py::handle item : items) result.push_back(operand_of(item, sizes));
  return result;
}

void register_tensors(py::module_& m) {
  m.def("set_tensor_types", &set_tensor_types);
  m.def("set_watchers", &set_watchers);
  m.def("is_unwatched", &is_unwatched);
  m.def("in_common", &in_common);
  m.def("all_within", &all_within);
  m.attr("PLAIN") = kPlain;
  m.attr("ONE_DTYPE") = kOneDType;
  m.attr("ONE_SHAPE") = kOneShape;
}

}  // namespace bsl
