#include "boot/reset_vector.h"

#include <gtest/gtest.h>

#include <array>

#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

TEST(ResetVector, WritesTheAcpiResetRegister) {
  const GuestMemory memory{std::array{GuestRange{GuestAddr{0}, 2 * layout::kMiB}}};
  write_reset_vector(memory);
  const auto code = memory.read<std::array<std::uint8_t, 9>>(GuestAddr{0xffff0});
  EXPECT_EQ(code, (std::array<std::uint8_t, 9>{0xb0, 0x01, 0xba, 0x02, 0x06, 0xee, 0xf4, 0xeb, 0xfd}));
}

}  // namespace
}  // namespace martlet
