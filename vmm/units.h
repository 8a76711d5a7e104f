#pragma once
#include "vmm/base/units.h"  // sizes and durations moved down, where devices may use them
