// What ops with a softmax (core/softmax_call.h) are made of on the CPU. A file of rows/ has
// forward<T>(call) and backward<T>(call).
#pragma once

#include "core/softmax.h"
#include "cpu/block.h"
#include "cpu/noise_block.h"
#include "cpu/parallel.h"
#include "cpu/softmax.h"
#include "cpu/tile.h"
