// From exec to the first KVM_RUN, phase by phase: the real program, a bzImage of 14 MB and an initrd of
// 30 MB, both in the page cache. The kernel's only work is to write its exit code. CPU time, as
// `martlet run --stats` reports it; medians of 21 starts.

#include <asm/bootparam.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace martlet {
namespace {

constexpr std::size_t kMB = 1'000'000;
constexpr std::size_t kSetupSectors = 15;
constexpr std::size_t kSector = 512;
constexpr std::size_t kEntry64 = 0x200;

/// A bzImage by the boot protocol's letter that ends the VM in three instructions.
void write_kernel(const std::filesystem::path& path) {
  std::vector<char> image(14 * kMB);
  setup_header header{};
  header.setup_sects = kSetupSectors;
  header.boot_flag = 0xaa55;
  header.jump = 0x66eb;  // its high byte tells where the header ends
  std::memcpy(&header.header, "HdrS", 4);
  header.version = 0x020f;
  header.loadflags = LOADED_HIGH;
  header.relocatable_kernel = 1;
  header.kernel_alignment = 0x200000;
  header.min_alignment = 21;
  header.xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G;
  header.cmdline_size = 2047;
  header.pref_address = 0x1000000;
  header.init_size = 16 * 1024 * 1024;
  header.initrd_addr_max = 0x7fffffff;
  header.syssize = static_cast<std::uint32_t>((image.size() - (kSetupSectors + 1) * kSector) / 16);
  std::memcpy(image.data() + 0x1f1, &header, sizeof header);
  constexpr std::array<unsigned char, 8> kCode = {0x30, 0xc0, 0x66, 0xba,
                                                  0x00, 0x05, 0xee, 0xf4};  // xor al,al; mov dx,0x500; out dx,al; hlt
  std::memcpy(image.data() + (kSetupSectors + 1) * kSector + kEntry64, kCode.data(), kCode.size());
  std::ofstream{path, std::ios::binary}.write(image.data(), static_cast<std::streamsize>(image.size()));
}

std::string run(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe{::popen(command.c_str(), "r"), ::pclose};
  REQUIRE(pipe);
  std::string output;
  std::array<char, 4096> chunk;
  while (const auto got = std::fread(chunk.data(), 1, chunk.size(), pipe.get())) {
    output.append(chunk.data(), got);
  }
  return output;
}

TEST_CASE("exec to first KVM_RUN") {
  const auto directory = std::filesystem::temp_directory_path() / ("martlet-bench-" + std::to_string(::getpid()));
  std::filesystem::create_directory(directory);
  write_kernel(directory / "bzImage");
  std::ofstream{directory / "initrd", std::ios::binary} << std::string(30 * kMB, 'x');

  std::vector<std::string> order;
  std::map<std::string, std::vector<double>> phases;
  for (int i = 0; i < 21; ++i) {
    const auto output = run(std::string{MARTLET_PROGRAM} + " run " + (directory / "bzImage").string() + " -i " +
                            (directory / "initrd").string() + " --serial null --stats 2>&1 </dev/null");
    for (std::size_t at = output.find("start: "); at != std::string::npos; at = output.find("start: ", at + 1)) {
      const auto line = output.substr(at + 7, output.find('\n', at) - at - 7);
      const auto name = line.substr(0, line.find("  "));
      const double microseconds = std::stod(line.substr(line.find("  ")));
      if (phases[name].empty()) {
        order.push_back(name);
      }
      phases[name].push_back(microseconds);
    }
  }
  std::filesystem::remove_all(directory);
  REQUIRE(!order.empty());
  double sum = 0;
  for (const auto& name : order) {
    auto& values = phases[name];
    std::ranges::sort(values);
    const double median = values[values.size() / 2];
    sum += name.starts_with("KVM") ? 0 : median;
    std::printf("%-34s %8.0f us of CPU\n", name.c_str(), median);
  }
  std::printf("%-34s %8.0f us of CPU\n", "all but KVM's own", sum);
}

}  // namespace
}  // namespace martlet
