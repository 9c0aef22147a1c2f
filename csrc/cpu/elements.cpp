// Runs any op that takes a number and rows of parameters, by its tiles (cpu/element_tile.h).
#include "cpu/block.h"
#include "cpu/element_tile.h"
#include "cpu/parallel.h"
#include "cpu/tile.h"

namespace bsl {
namespace {

constexpr int kMaxOperands = kMaxRowInputs - 1;

template <typename T>
struct ElementReaders {
  ElementReaders(const ElementCall& a, const ElementTile<T>& tiles)
      : type(tiles),
        widths(a.widths),
        x(a.inputs[0], a.shape),
        rows{{a.inputs[1], a.shape}, {a.inputs[2], a.shape}, {a.inputs[3], a.shape}} {
    static_assert(kMaxOperands == 3, "a reader for each");
  }

  // Calls f(first) for each tile of a block, loaded; `first` counts within the block.
  template <typename F>
  void for_each_tile(void* tile, int64_t start, int length, const F& f) {
    const T* numbers = x.block(start, length);
    const T* const* found[kMaxOperands] = {};
    for (int i = 0; i < type.operands; ++i) found[i] = rows[i].block(start, length);
    const T* operands[kMaxOperands] = {};
    for (int k = 0; k < type.operands; ++k) operands[k] = lanes[k];
    for (int i = 0; i < length; i += kRows) {
      for (int k = 0; k < type.operands; ++k) {
        load_rows(found[k] + i, static_cast<int>(widths[1 + k]), lanes[k]);
      }
      type.load(tile, numbers + i, operands);
      f(i);
    }
  }

  const ElementTile<T>& type;
  const int64_t* widths;
  alignas(64) T lanes[kMaxOperands][(kMaxBins + 1) * kRows];
  Reader<T> x;
  RowReader<T> rows[kMaxOperands];
};

template <typename T>
void forward(const RowForward& a, const ElementTile<T>& type) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) {
    with_tile(type, a, [&](void* tile) {
      ElementReaders<T> readers(a, type);
      Writer<T> value(a.value);
      Reducer<T> log(a.shape.plan, a.reduction, chunk, a.log, a.partials);
      alignas(64) T values[kBlock] = {}, logs[kBlock];
      int invalid = 0;
      for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int n) {
        readers.for_each_tile(tile, start, n, [&](int i) {
          type.map(tile, values + i, logs + i);
          invalid |= type.invalid(tile);
        });
        value.store(values, start, n);
        log.add(logs, start, n);
      });
      if (invalid != 0) __atomic_fetch_or(a.invalid, invalid, __ATOMIC_RELAXED);
    });
  });
  combine_partials<T>(a.shape.plan, a.partials, a.log);
}

template <typename T>
void backward(const RowBackward& a, const ElementTile<T>& type) {
  parallel_chunks(a.shape.plan.n_chunks, [&](int64_t chunk) {
    with_tile(type, a, [&](void* tile) {
      ElementReaders<T> readers(a, type);
      Reader<T> grad_value(a.grad_value, a.shape), grad_log(a.grad_log, a.shape);
      Writer<T> grad_x(a.grads[0]);
      alignas(64) T by_x[kBlock] = {};
      for_each_block(a.shape.plan.begin(chunk), a.shape.plan.end(chunk), [&](int64_t start, int n) {
        const T* by_value = grad_value.block(start, n);
        const T* by_log = grad_log.block(start, n);
        readers.for_each_tile(tile, start, n, [&](int i) {
          type.gradients(tile, by_value + i, by_log + i, by_x + i);
          for (int k = type.operands - 1; k >= 0; --k) {
            T* data = static_cast<T*>(a.grads[1 + k]);
            if (data == nullptr) continue;
            transpose_back(type.gradient(tile, k), n - i < kRows ? n - i : kRows,
                           static_cast<int>(a.widths[1 + k]), data + (start + i) * a.widths[1 + k]);
          }
        });
        grad_x.store(by_x, start, n);
      });
    });
  });
}

}  // namespace

namespace BSL_ISA {
void run_elements(const RowForward& a, const ElementTile<float>& type) { forward(a, type); }
void run_elements(const RowForward& a, const ElementTile<double>& type) { forward(a, type); }
void run_elements(const RowBackward& a, const ElementTile<float>& type) { backward(a, type); }
void run_elements(const RowBackward& a, const ElementTile<double>& type) { backward(a, type); }
}  // namespace BSL_ISA

}  // namespace bsl
