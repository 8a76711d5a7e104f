// The stub behind its socket; and a stock gdb in front of it.

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <thread>

#include "tests/support/subprocess.h"
#include "tests/unit/gdb_toy_machine.h"
#include "vmm/base/error.h"
#include "vmm/debug/gdb/server.h"
#include "vmm/debug/kernel_text.h"

namespace martlet::gdb {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class GdbServer : public testing::Test {
 protected:
  [[nodiscard]] std::string path(std::string_view name) const { return directory_.file(name); }

  /// Runs the loop while `script` runs on a thread of its own.
  void run(const std::function<void()>& script) {
    std::thread thread;
    Timer begin{loop_, [&] {
                  thread = std::thread{[&] {
                    script();
                    loop_.call([&] { loop_.stop(); });
                  }};
                }};
    begin.start_once(1ns);
    loop_.run();
    thread.join();
  }
  /// From a script: what only the loop's thread may look at.
  bool wait_until(const std::function<bool()>& true_on_loop) {
    for (int i = 0; i < 10000; ++i) {
      bool reached = false;
      loop_.call([&] { reached = true_on_loop(); });
      if (reached) {
        return true;
      }
      std::this_thread::sleep_for(1ms);
    }
    return false;
  }

  /// A client whose reads end after ten seconds.
  static Fd connect_unix(const std::string& path) {
    Fd client{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    EXPECT_EQ(::setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    EXPECT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return client;
  }
  static void send_to(const Fd& client, std::string_view bytes) {
    EXPECT_EQ(::write(client.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  /// What comes from the server, up to `end` or until it hangs up ("(end)" then).
  static std::string receive(const Fd& client, std::string_view end) {
    std::string all;
    while (!all.ends_with(end)) {
      char byte = 0;
      const auto size = ::read(client.get(), &byte, 1);
      if (size <= 0) {
        return all + (size == 0 ? "(end)" : "(nothing more)");
      }
      all += byte;
    }
    return all;
  }

  /// What gdb prints when it is given `commands`.
  std::string run_gdb(const Server& server, const std::vector<std::string>& commands, const std::string& symbols = {});

  const test::TempDir directory_;
  EventLoop loop_;
  ToyMachine machine_{loop_};
};

TEST_F(GdbServer, ServesOneClientAtATime) {
  const Server server{loop_, machine_, {.where = "unix:" + path("gdb"), .version = "Martlet"}};
  machine_.resume(std::vector<CpuOrder>(2));
  run([&] {
    {
      const auto first = connect_unix(path("gdb"));
      send_to(first, "$?#3f");
      EXPECT_EQ(receive(first, "#d4"), "+$T02thread:1;#d4");
      const auto second = connect_unix(path("gdb"));
      EXPECT_EQ(receive(second, "#"), "(end)");
      send_to(first, "$qC#b4");
      EXPECT_EQ(receive(first, "#c5"), "+$QC1#c5") << "undisturbed";
    }
    EXPECT_TRUE(wait_until([&] { return !server.has_client() && !machine_.resting_; })) << "gone: let go";
    const auto third = connect_unix(path("gdb"));
    send_to(third, "$D#44");
    EXPECT_EQ(receive(third, "never"), "+$OK#9a(end)");
    EXPECT_TRUE(wait_until([&] { return !server.has_client() && !machine_.resting_; }));
  });
}

TEST_F(GdbServer, ListensOnThisHostAlone) {
  const Server server{loop_, machine_, {.where = "0", .version = "Martlet"}};
  // By number: there may be no /etc/hosts, for us or for gdb.
  EXPECT_THAT(server.address(), testing::StartsWith("127.0.0.1:"));
  const Server other{loop_, machine_, {.where = "127.0.0.2:0", .version = "Martlet"}};
  EXPECT_THAT(other.address(), testing::StartsWith("127.0.0.2:"));
  const auto taken = server.address();
  EXPECT_THROW((Server{loop_, machine_, {.where = taken, .version = "Martlet"}}), HostError);
}

TEST_F(GdbServer, SaysWhatItExpects) {
  for (const auto* where : {"", ":", "host:", "12a", "localhost:port", "unix:", "999999"}) {
    EXPECT_THROW((Server{loop_, machine_, {.where = where, .version = "Martlet"}}), HostError) << where;
  }
}

TEST_F(GdbServer, AClientThatReadsNothingIsLeftWaiting) {
  const Server server{loop_, machine_, {.where = "unix:" + path("gdb"), .version = "Martlet"}};
  run([&] {
    const auto client = connect_unix(path("gdb"));
    const std::string request = frame(fmt::format("m{:x},2000", FakeTarget::kText));
    const std::string reply = "+" + frame(to_hex(ToyMachine::kProgram) + std::string(kMaxPacket - 24, '0'));
    std::size_t sent = 0;
    for (int quiet = 0; quiet < 20;) {  // until nothing is taken for a while
      const auto size = ::send(client.get(), request.data(), request.size(), MSG_DONTWAIT);
      if (size == static_cast<ssize_t>(request.size())) {
        ++sent;
        quiet = 0;
      } else {
        ASSERT_LT(size, 0);
        ++quiet;
        std::this_thread::sleep_for(1ms);
      }
    }
    std::string got(reply.size(), '\0');
    for (std::size_t i = 0; i < sent; ++i) {
      ASSERT_EQ(::recv(client.get(), got.data(), got.size(), MSG_WAITALL), static_cast<ssize_t>(got.size()));
      ASSERT_EQ(got, reply) << "and then gets everything";
    }
    send_to(client, "$qC#b4");
    EXPECT_EQ(receive(client, "#c5"), "+$QC1#c5");
  });
}

std::string GdbServer::run_gdb(const Server& server, const std::vector<std::string>& commands,
                               const std::string& symbols) {
  std::vector<std::string> words{"timeout", "60", "gdb", "-nx", "-batch", "-ex", "set pagination off"};
  if (!symbols.empty()) {
    words.insert(words.end(), {"-ex", "symbol-file " + symbols});
  }
  words.insert(words.end(), {"-ex", "target remote " + server.address()});
  for (const auto& command : commands) {
    words.insert(words.end(), {"-ex", command});
  }
  std::vector<char*> argv;
  for (auto& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  run([&] {
    posix_spawn_file_actions_t actions{};
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 1, path("log").c_str(), O_WRONLY | O_CREAT, 0600);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    pid_t pid = 0;
    ASSERT_EQ(::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&actions);
    int status = -1;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  });
  std::ifstream log{path("log")};
  return {std::istreambuf_iterator<char>{log}, {}};
}

bool has_gdb() { return ::system("gdb --version >/dev/null 2>&1") == 0; }

TEST_F(GdbServer, StockGdbIsContent) {
  if (!has_gdb()) {
    GTEST_SKIP() << "no gdb";
  }
  machine_.cpus_[1].has_avx = machine_.cpus_[0].has_avx = true;
  machine_.put(FakeTarget::kDataPhys + 0x100, "martlet");
  const Server server{loop_, machine_, {.where = "0", .version = "Martlet 1.2.3"}};
  const auto log = run_gdb(server, {"info threads",
                                    "info registers rip fs_base k_gs_base cr0 efer xmm0 ymm1",
                                    "info registers",
                                    "x/4i $pc",
                                    "x/s 0xffffffff9b000100",
                                    "x/4gx 0xffffffffc0000000",
                                    "break *0xffffffff9a200002",
                                    "continue",
                                    "x/2i $pc",
                                    "echo count:\\n",
                                    "p/d *(int *) 0xffffffff9b000000",
                                    "continue",
                                    "stepi",
                                    "p $pc",
                                    "delete",
                                    "hbreak *0xffffffff9a200009",
                                    "continue",
                                    "delete",
                                    "watch *(int *) 0xffffffff9b000000",
                                    "continue",
                                    "delete",
                                    "thread 2",
                                    "set $rax = 0x1234",
                                    "p/x $rax",
                                    "monitor info version",
                                    "monitor info kaslr",
                                    "maintenance packet Qqemu.PhyMemMode:1",
                                    "x/1gx 0x8100",
                                    "detach"});
  EXPECT_THAT(log, HasSubstr("Thread 1 (vCPU 0: kernel)"));
  EXPECT_THAT(log, HasSubstr("Thread 2 (vCPU 1: kernel)"));
  EXPECT_THAT(log, HasSubstr("0x80000001"));
  EXPECT_THAT(log, HasSubstr("[ PE PG ]"));
  EXPECT_THAT(log, HasSubstr("[ SCE LME LMA NXE ]"));
  EXPECT_THAT(log, HasSubstr("incl   0xffffffff9b000000"));
  EXPECT_THAT(log, HasSubstr("\"martlet\""));
  EXPECT_THAT(log, HasSubstr("Cannot access memory at address 0xffffffffc0000000"));
  EXPECT_THAT(log, HasSubstr("hit Breakpoint 1, 0xffffffff9a200002"));
  EXPECT_THAT(log, HasSubstr("hit Breakpoint 2, 0xffffffff9a200009"));
  EXPECT_THAT(log, HasSubstr("Hardware watchpoint 3: *(int *) 0xffffffff9b000000"));
  EXPECT_THAT(log, HasSubstr("New value = "));
  EXPECT_THAT(log, HasSubstr("0x1234"));
  EXPECT_THAT(log, HasSubstr("Martlet 1.2.3"));
  EXPECT_THAT(log, HasSubstr("KASLR offset 0x19200000"));
  EXPECT_THAT(log, HasSubstr("0x8100:\t0x0074656c7472616d"));
  EXPECT_THAT(log, HasSubstr("detached"));
  EXPECT_EQ(machine_.cpus_[1].regs.rax, 0x1234U);
  EXPECT_FALSE(machine_.resting_);
  if (HasFailure()) {
    std::cerr << log;
  }
}

/// A kernel's symbols as its linker leaves them: text from 0xffffffff81000000 on, nothing else.
class Vmlinux {
 public:
  static constexpr std::uint64_t kLinked = kLinkedKernelText;

  void write(const std::string& path) const {
    constexpr std::string_view names{"\0.text\0.symtab\0.strtab\0start_kernel\0after\0", 42};
    const std::array<Elf64_Sym, 3> symbols{Elf64_Sym{}, symbol(23, kLinked + 2), symbol(36, kLinked + 9)};
    const std::uint64_t headers = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr);
    const std::uint64_t text = ToyMachine::kProgram.size();
    const std::uint64_t strings = headers + text + sizeof symbols;
    std::array<Elf64_Shdr, 4> sections{section(0, SHT_NULL, 0, 0), section(1, SHT_PROGBITS, headers, text),
                                       section(7, SHT_SYMTAB, headers + text, sizeof symbols),
                                       section(15, SHT_STRTAB, strings, names.size())};
    sections[1].sh_flags = SHF_ALLOC | SHF_EXECINSTR;
    sections[1].sh_addr = kLinked;
    sections[2].sh_link = 3;
    sections[2].sh_info = 1;
    sections[2].sh_entsize = sizeof(Elf64_Sym);
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident,
                "\x7f"
                "ELF\x02\x01\x01",
                7);  // 64 bits, little-endian
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = kLinked;
    header.e_phoff = header.e_ehsize = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 1;
    header.e_shoff = strings + names.size();
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = sections.size();
    header.e_shstrndx = 3;
    const Elf64_Phdr segment{.p_type = PT_LOAD,
                             .p_flags = PF_R | PF_X,
                             .p_offset = headers,
                             .p_vaddr = kLinked,
                             .p_paddr = 0x100'0000,
                             .p_filesz = text,
                             .p_memsz = text,
                             .p_align = 1};
    std::ofstream file{path, std::ios::binary};
    const auto put = [&](const auto& thing) { file.write(reinterpret_cast<const char*>(&thing), sizeof thing); };
    put(header);
    put(segment);
    file << ToyMachine::kProgram;
    put(symbols);
    file << names;
    put(sections);
  }

 private:
  static Elf64_Shdr section(Elf64_Word name, Elf64_Word type, std::uint64_t offset, std::uint64_t size) {
    Elf64_Shdr header{};
    header.sh_name = name;
    header.sh_type = type;
    header.sh_offset = offset;
    header.sh_size = size;
    header.sh_addralign = 1;
    return header;
  }
  static Elf64_Sym symbol(Elf64_Word name, std::uint64_t addr) {
    return {.st_name = name,
            .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
            .st_other = 0,
            .st_shndx = 1,
            .st_value = addr,
            .st_size = 1};
  }
};

TEST_F(GdbServer, StockGdbFindsAKernelThatKaslrMoved) {
  if (!has_gdb()) {
    GTEST_SKIP() << "no gdb";
  }
  Vmlinux{}.write(path("vmlinux"));
  const Server server{loop_, machine_, {.where = "unix:" + path("gdb"), .version = "Martlet 1.2.3"}};
  const auto log = run_gdb(server,
                           {"info symbol 0xffffffff9a200002", "break *start_kernel", "continue", "tbreak *after",
                            "continue", "x/i $pc", "kill"},
                           path("vmlinux"));
  EXPECT_THAT(log, HasSubstr("start_kernel in section .text"));
  EXPECT_THAT(log, HasSubstr("Breakpoint 1 at 0xffffffff9a200002"));
  EXPECT_THAT(log, HasSubstr("hit Breakpoint 1, 0xffffffff9a200002 in start_kernel ()"));
  EXPECT_THAT(log, HasSubstr("=> 0xffffffff9a200009 <after>:"));
  EXPECT_EQ(machine_.quits_, 1);
  if (HasFailure()) {
    std::cerr << log;
  }
}

TEST_F(GdbServer, StockGdbSaysThatDebugRegistersHaveRunOut) {
  if (!has_gdb()) {
    GTEST_SKIP() << "no gdb";
  }
  machine_.int3_exits_ = false;
  const Server server{loop_, machine_, {.where = "unix:" + path("gdb"), .version = "Martlet 1.2.3"}};
  const auto log =
      run_gdb(server, {"break *0xffffffff9a200009", "continue", "continue", "break *0xffffffff9a200100",
                       "break *0xffffffff9a200101", "break *0xffffffff9a200102", "break *0xffffffff9a200103",
                       "continue", "delete 5", "continue", "monitor info registers"});
  EXPECT_THAT(log, HasSubstr("hit Breakpoint 1, 0xffffffff9a200009"));
  EXPECT_THAT(log, HasSubstr("Cannot insert breakpoint"));
  EXPECT_THAT(log, HasSubstr("this host's KVM does not report int3, and the CPU's four debug registers"));
  if (HasFailure()) {
    std::cerr << log;
  }
}

}  // namespace
}  // namespace martlet::gdb
