#pragma once
// The registers as gdb numbers and describes them: x86-64's, in every mode of the CPU, with the numbers that QEMU's
// stub gives them.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "vmm/x86_64/cpu_state.h"

namespace martlet::gdb {

/// How many a CPU has: AVX makes some more.
[[nodiscard]] std::size_t register_count(const CpuState& state) noexcept;

/// Register `number`, below register_count(), as its bytes in target order.
[[nodiscard]] std::string read_register(const CpuState& state, std::size_t number);

/// All of them, one after the other.
[[nodiscard]] std::string read_registers(const CpuState& state);

/// How many bytes register `number` has.
[[nodiscard]] std::size_t size_of_register(std::size_t number) noexcept;

/// Sets register `number` from its bytes and notes in `parts` what that changed. Selectors cannot be written (what
/// they mean lies in descriptors): false, unless it says what is there already.
[[nodiscard]] bool write_register(CpuState& state, std::size_t number, std::string_view bytes, CpuParts& parts);

/// target.xml.
[[nodiscard]] std::string target_description(bool has_avx);

/// For `monitor info registers`.
[[nodiscard]] std::string registers_for_people(const CpuState& state);

}  // namespace martlet::gdb
