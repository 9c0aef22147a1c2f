#include "cpu/affine_coupling.h"

#include "cpu/block.h"
#include "cpu/parallel.h"

namespace bsl {
namespace {

template <typename T, ScaleFn F, bool kInverse>
void forward_chunk(const AffineForward& a, int64_t chunk) {
  Reader<T> x_reader(a.x, a.shape), shift_reader(a.shift, a.shape);
  Reader<T> raw_reader(a.raw_scale, a.shape);
  Writer<T> y_writer(static_cast<T*>(a.y));
  Reducer<T> log_det(a.plan, a.reduction, chunk, static_cast<T*>(a.log_det), a.partials);
  alignas(64) T log[kBlock];

  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* x = x_reader.block(start, length);
    const T* shift = shift_reader.block(start, length);
    const T* raw = raw_reader.block(start, length);
    T* y = y_writer.block(start, length);
#pragma omp simd
    for (int i = 0; i < kBlock; ++i) {
      const affine::Scale<T> s = affine::scale<F, kInverse>(raw[i]);
      y[i] = affine::map<kInverse>(x[i], shift[i], s.factor);
      log[i] = kInverse ? -s.log : s.log;
    }
    y_writer.commit(start, length);
    log_det.add(log, start, length);
  });
}

template <typename T, ScaleFn F, bool kInverse>
void backward_chunk(const AffineBackward& a, int64_t chunk) {
  Reader<T> x_reader(a.x, a.shape), shift_reader(a.shift, a.shape);
  Reader<T> raw_reader(a.raw_scale, a.shape);
  Reader<T> grad_y_reader(a.grad_y, a.shape), grad_log_det_reader(a.grad_log_det, a.shape);
  Writer<T> grad_x(static_cast<T*>(a.grad_x)), grad_shift(static_cast<T*>(a.grad_shift));
  Writer<T> grad_raw(static_cast<T*>(a.grad_raw_scale));
  alignas(64) T by_x[kBlock], by_shift[kBlock], by_raw[kBlock];

  for_each_block(a.plan.begin(chunk), a.plan.end(chunk), [&](int64_t start, int length) {
    const T* x = x_reader.block(start, length);
    // The gradients of the forward map do not depend on the shift.
    const T* shift = kInverse ? shift_reader.block(start, length) : x;
    const T* raw = raw_reader.block(start, length);
    const T* grad_y = grad_y_reader.block(start, length);
    const T* grad_log_det = grad_log_det_reader.block(start, length);
    for (int i = 0; i < kBlock; ++i) {
      const affine::Gradients<T> g =
          affine::gradients<F, kInverse>(x[i], shift[i], raw[i], grad_y[i], grad_log_det[i]);
      by_x[i] = g.x;
      by_shift[i] = g.shift;
      by_raw[i] = g.raw;
    }
    grad_x.store(by_x, start, length);
    grad_shift.store(by_shift, start, length);
    grad_raw.store(by_raw, start, length);
  });
}

template <ScaleFn F, bool kInverse>
struct Case {
  static constexpr ScaleFn scale_fn = F;
  static constexpr bool inverse = kInverse;
};

// Calls f with the call's scale function and direction as constants.
template <typename F>
void with_case(ScaleFn scale_fn, bool inverse, const F& f) {
  switch (scale_fn) {
    case ScaleFn::tanh:
      return inverse ? f(Case<ScaleFn::tanh, true>()) : f(Case<ScaleFn::tanh, false>());
    case ScaleFn::exp:
      return inverse ? f(Case<ScaleFn::exp, true>()) : f(Case<ScaleFn::exp, false>());
    case ScaleFn::sigmoid:
      return inverse ? f(Case<ScaleFn::sigmoid, true>()) : f(Case<ScaleFn::sigmoid, false>());
  }
}

template <typename T>
void forward(const AffineForward& a) {
  with_case(a.scale_fn, a.inverse, [&](auto c) {
    parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
      forward_chunk<T, decltype(c)::scale_fn, decltype(c)::inverse>(a, chunk);
    });
  });
  combine_partials(a.plan, a.partials, static_cast<T*>(a.log_det));
}

template <typename T>
void backward(const AffineBackward& a) {
  with_case(a.scale_fn, a.inverse, [&](auto c) {
    parallel_chunks(a.plan.n_chunks, [&](int64_t chunk) {
      backward_chunk<T, decltype(c)::scale_fn, decltype(c)::inverse>(a, chunk);
    });
  });
}

}  // namespace

namespace BSL_ISA {
extern const AffineKernels affine_kernels = {forward<float>, forward<double>, backward<float>,
                                             backward<double>};
}  // namespace BSL_ISA
}  // namespace bsl
