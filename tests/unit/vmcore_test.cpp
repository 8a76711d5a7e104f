#include "vmm/debug/vmcore.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zstd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/support/core_file.h"
#include "tests/support/subprocess.h"
#include "tests/unit/fake_kernel.h"
#include "vmm/base/error.h"
#include "vmm/base/touched_pages.h"

namespace martlet {
namespace {

constexpr std::uint64_t k4GiB = std::uint64_t{4} << 30U;

class VmcoreFile : public testing::Test {
 protected:
  VmcoreFile() {
    kernel.publish();
    (void)kernel.memory.write(GuestAddr{k4GiB + 0x1234}, std::uint32_t{0xfeedbeef});
    for (std::uint64_t i = 0; i < 2; ++i) {
      auto cpu = kernel.cpu(FakeKernel::kText + i, 0x1000 + i, 7);
      cpu.regs.r15 = 15 + i;
      cpu.sregs.gs.base = 0xffff'8880'0000'0000 + i;
      cpu.sregs.cs = {
          .base = 0, .limit = 0xffff'ffff, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
      cpu.sregs.idt = {.base = 0xffff'fe00'0000'0000, .limit = 0xfff};
      cpu.sregs.cr2 = 0xcc + i;
      cpu.kernel_gs_base = 0x7f00 + i;
      cpus.push_back(cpu);
    }
  }
  std::string path(const std::string& name = "vmcore") const { return directory.file(name); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator{directory.path()}, {}));
  }
  static std::string content(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream{file, std::ios::binary}.rdbuf();
    return text.str();
  }

  FakeKernel kernel{std::vector<GuestRange>{{GuestAddr{0}, FakeKernel::kRam}, {GuestAddr{k4GiB}, 4U << 20U}}};
  std::vector<CpuState> cpus;
  VmCoreInfo info = kernel.info();
  const test::TempDir directory;
};

TEST_F(VmcoreFile, IsReadBack) {
  write_vmcore({.memory = kernel.memory, .cpus = cpus, .info = &info, .path = path()});
  const auto core = test::read_core(path());
  EXPECT_EQ(core.vmcoreinfo, kernel.text);
  EXPECT_EQ(core.pids, (std::vector<std::uint32_t>{1, 2}));
  ASSERT_EQ(core.cpus.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(std::memcmp(&core.cpus[i].regs, &cpus[i].regs, sizeof(kvm_regs)), 0);
    EXPECT_EQ(core.cpus[i].sregs.gs.base, cpus[i].sregs.gs.base);
    EXPECT_EQ(std::memcmp(&core.cpus[i].sregs.cs, &cpus[i].sregs.cs, sizeof(kvm_segment)), 0);
    EXPECT_EQ(core.cpus[i].sregs.idt.base, cpus[i].sregs.idt.base);
    EXPECT_EQ(core.cpus[i].sregs.idt.limit, cpus[i].sregs.idt.limit);
    EXPECT_EQ(core.cpus[i].sregs.cr2, cpus[i].sregs.cr2);
    EXPECT_EQ(core.cpus[i].sregs.cr3, cpus[i].sregs.cr3);
    EXPECT_EQ(core.cpus[i].kernel_gs_base, cpus[i].kernel_gs_base);
  }
  EXPECT_EQ(core.memory->read<std::uint32_t>(GuestAddr{k4GiB + 0x1234}), 0xfeedbeef);
  EXPECT_EQ(core.memory->read<std::uint64_t>(GuestAddr{FakeKernel::physical(FakeKernel::kTables) + 8 * 511}),
            kernel.memory.read<std::uint64_t>(GuestAddr{FakeKernel::physical(FakeKernel::kTables) + 8 * 511}));
}

TEST_F(VmcoreFile, HasTheKernelsOwnAddressesToo) {
  write_vmcore({.memory = kernel.memory, .cpus = cpus, .info = &info, .path = path()});
  const std::string bytes = content(path());
  Elf64_Ehdr elf;
  std::memcpy(&elf, bytes.data(), sizeof elf);
  std::vector<Elf64_Phdr> headers(elf.e_phnum);
  std::memcpy(headers.data(), bytes.data() + elf.e_phoff, headers.size() * sizeof(Elf64_Phdr));
  ASSERT_EQ(headers.size(), 4U);
  EXPECT_EQ(headers[0].p_type, Elf64_Word{PT_NOTE});
  EXPECT_EQ(headers[1].p_vaddr, FakeKernel::kText);
  EXPECT_EQ(headers[1].p_paddr, FakeKernel::kTextPhysical);
  EXPECT_EQ(headers[1].p_memsz, FakeKernel::kTables + 4096 - FakeKernel::kText);
  EXPECT_EQ(headers[1].p_offset, headers[2].p_offset + FakeKernel::kTextPhysical);
  EXPECT_EQ(headers[2].p_vaddr, FakeKernel::kDirectMap);
  EXPECT_EQ(headers[3].p_vaddr, FakeKernel::kDirectMap + k4GiB);
  EXPECT_EQ(headers[3].p_paddr, k4GiB);
  for (std::size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(headers[i].p_offset % 4096, 0U);
  }
}

TEST_F(VmcoreFile, BeforeVmcoreinfoHasTheRegisters) {
  write_vmcore({.memory = kernel.memory, .cpus = cpus, .path = path()});
  const auto core = test::read_core(path());
  EXPECT_EQ(core.vmcoreinfo, "");
  EXPECT_EQ(core.cpus.size(), 2U);
}

TEST_F(VmcoreFile, HasHolesAndReadsNoMemoryIn) {
  const FakeKernel large{std::vector<GuestRange>{{GuestAddr{0}, FakeKernel::kRam}, {GuestAddr{k4GiB}, 8ULL << 30U}}};
  (void)large.memory.write(GuestAddr{k4GiB + (6ULL << 30U)}, std::uint64_t{1});
  const auto touched = [&] {
    std::uint64_t total = 0;
    visit_touched(large.memory, [&](const GuestRange& run) {
      total += run.size;
      return true;
    });
    return total;
  };
  const auto before = touched();
  write_vmcore({.memory = large.memory, .cpus = cpus, .info = &info, .path = path()});
  EXPECT_EQ(touched(), before);
  struct stat status {};
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_GT(status.st_size, off_t{8} << 30);
  EXPECT_LT(status.st_blocks * 512, 1 << 20) << "zeros take no space";
  EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST_F(VmcoreFile, CompressedIsTheSame) {
  write_vmcore({.memory = kernel.memory, .cpus = cpus, .info = &info, .path = path("plain")});
  write_vmcore({.memory = kernel.memory,
                .cpus = cpus,
                .info = &info,
                .path = path("zst"),
                .compression = Vmcore::Compression::Zstd});
  const auto compressed = content(path("zst"));
  const auto plain = content(path("plain"));
  EXPECT_LT(compressed.size(), plain.size() / 100);
  ASSERT_EQ(ZSTD_getFrameContentSize(compressed.data(), compressed.size()), plain.size());
  std::string unpacked(plain.size(), '\0');
  ASSERT_EQ(ZSTD_decompress(unpacked.data(), unpacked.size(), compressed.data(), compressed.size()), plain.size());
  EXPECT_TRUE(unpacked == plain);
}

TEST_F(VmcoreFile, AnOlderOneIsReplacedWhole) {
  std::ofstream{path()} << "older";
  write_vmcore({.memory = kernel.memory, .cpus = cpus, .path = path()});
  EXPECT_EQ(test::read_core(path()).cpus.size(), 2U);
  EXPECT_EQ(files(), 1U);
}

TEST_F(VmcoreFile, AFullDiskLeavesNothingBehind) {
  std::ofstream{path()} << "older";
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit small{.rlim_cur = 1U << 20U, .rlim_max = limit.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    write_vmcore({.memory = kernel.memory, .cpus = cpus, .path = path()});
  } catch (const HostError& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, testing::AllOf(testing::HasSubstr(path()), testing::HasSubstr("free space")));
  EXPECT_EQ(files(), 1U);
  EXPECT_EQ(content(path()), "older");
}

TEST_F(VmcoreFile, ADirectoryThatIsNotThereIsNamed) {
  try {
    write_vmcore({.memory = kernel.memory, .cpus = cpus, .path = path("no/vmcore")});
    FAIL();
  } catch (const HostError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(path("no/vmcore")));
  }
}

}  // namespace
}  // namespace martlet
