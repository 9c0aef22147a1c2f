// What ops with a softmax (core/softmax_call.h) are made of on CUDA devices. A file of rows/ has
// forward<T>(call, stream) and backward<T>(call, stream).
#pragma once

#include "cuda/softmax.h"
#include "cuda/team.h"
