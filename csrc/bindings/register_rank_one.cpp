#include <pybind11/pybind11.h>

#include "bindings/operands.h"
#include "cpu/memory.h"
#include "cpu/rank_one.h"

namespace py = pybind11;

namespace bsl {
namespace {

// Chunks of rows with about kChunk numbers each.
ChunkPlan plan_rows_of(int64_t rows, int64_t width) {
  ChunkPlan plan(rows, 1, Reduction::none);
  const int64_t wanted = kChunk / (width > 0 ? width : 1) / kBlock * kBlock;
  plan.chunk = width > kChunk ? 1 : wanted > kBlock ? wanted : kBlock;
  plan.n_chunks = (rows + plan.chunk - 1) / plan.chunk;
  return plan;
}

const RankOneKernels& kernels(bool radial) {
  return radial ? BSL_SELECT(radial_kernels) : BSL_SELECT(planar_kernels);
}

void describe(RankOneCall& a, const std::vector<int64_t>& sizes, int64_t width,
              std::vector<PyOperand>& rows, std::vector<PyOperand>& scalars,
              std::vector<PyOperand*> others) {
  if (rows.size() != 3 || scalars.size() != 2) throw std::invalid_argument("number of operands");
  for (PyOperand& o : rows) others.push_back(&o);
  for (PyOperand& o : scalars) others.push_back(&o);
  a.shape = make_shape(sizes, others);
  a.width = width;
  a.z = rows[0].operand;
  a.first = rows[1].operand;
  a.second = rows[2].operand;
  for (int i = 0; i < 2; ++i) a.scalars[i] = scalars[i].operand;
  a.plan = plan_rows_of(a.shape.numel, width);
}

void rank_one_forward(bool radial, bool is_double, const std::vector<int64_t>& sizes, int64_t width,
                      std::vector<PyOperand> rows, std::vector<PyOperand> scalars, uintptr_t y,
                      uintptr_t log_det) {
  RankOneForward a{};
  describe(a, sizes, width, rows, scalars, {});
  a.y = pointer(y);
  a.log_det = pointer(log_det);
  py::gil_scoped_release release;
  expect_writes(a.y, a.shape.numel * width * (is_double ? 8 : 4));
  (is_double ? kernels(radial).forward_double : kernels(radial).forward_float)(a);
}

void rank_one_backward(bool radial, bool is_double, const std::vector<int64_t>& sizes,
                       int64_t width, std::vector<PyOperand> rows, std::vector<PyOperand> scalars,
                       PyOperand grad_y, PyOperand grad_log_det,
                       const std::vector<uintptr_t>& grads, const std::vector<uintptr_t>& sums) {
  RankOneBackward a{};
  describe(a, sizes, width, rows, scalars, {&grad_y, &grad_log_det});
  a.grad_y = grad_y.operand;
  a.grad_log_det = grad_log_det.operand;
  for (size_t i = 0; i < 5; ++i) a.grads[i] = pointer(grads.at(i));
  for (size_t i = 0; i < 3; ++i) a.sums[i] = static_cast<double*>(pointer(sums.at(i)));
  py::gil_scoped_release release;
  for (int i = 0; i < 3; ++i) {
    expect_writes(a.grads[i], a.shape.numel * width * (is_double ? 8 : 4));
  }
  (is_double ? kernels(radial).backward_double : kernels(radial).backward_float)(a);
}

}  // namespace

void register_rank_one(py::module_& m) {
  m.def("rank_one_chunks",
        [](int64_t rows, int64_t width) { return plan_rows_of(rows, width).n_chunks; });
  m.def("rank_one_forward", &rank_one_forward);
  m.def("rank_one_backward", &rank_one_backward);
}

}  // namespace bsl
