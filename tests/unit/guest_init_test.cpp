// What the init of --exec does with words (guest/text.h), on the host.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <string>
#include <vector>

#include "guest/image.h"
#include "guest/text.h"

namespace guest {
namespace {

std::vector<std::string> words_of(std::string text, std::size_t most = 8) {
  std::vector<char*> words(most);
  const auto count = split_words(text.data(), words.data(), most);
  EXPECT_EQ(words[count], nullptr);
  return {words.begin(), words.begin() + static_cast<std::ptrdiff_t>(count)};
}

TEST(GuestInit, LineTakesWordsAndNumbersAndIsCutAtItsEnd) {
  Line line;
  line << "error " << 42L << ", " << -7L << ", " << 0L;
  EXPECT_EQ(line.view(), "error 42, -7, 0");
  EXPECT_STREQ(line.c_str(), "error 42, -7, 0");
  Line least;
  EXPECT_EQ((least << std::numeric_limits<long>::min()).view(), "-9223372036854775808");
  Line full;
  for (int i = 0; i < 100; ++i) {
    full << "0123456789";
  }
  EXPECT_EQ(full.view().size(), 511U);
  EXPECT_EQ(std::string{full.c_str()}.size(), 511U);
}

TEST(GuestInit, SplitsAtBlanks) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words_of("/bin/test -v  --name=x\ty "), (Words{"/bin/test", "-v", "--name=x", "y"}));
  EXPECT_EQ(words_of("  one"), Words{"one"});
  EXPECT_EQ(words_of(" \t "), Words{});
  EXPECT_EQ(words_of(""), Words{});
  EXPECT_EQ(words_of("a b c d e", 4), (Words{"a", "b", "c"})) << "as many as there is room for, and the null";
}

TEST(GuestInit, KnowsWhatOnlyAShellUnderstands) {
  for (const auto* plain : {"", "true", "/bin/test --name=x,y:z -n 3", "a-b_c.d/e@f%g+h"}) {
    EXPECT_FALSE(needs_shell(plain)) << plain;
  }
  for (const auto* shell :
       {"a; b", "a | b", "a && b", "a > b", "$HOME", "`a`", "'a b'", "\"a b\"", "a\nb", "*.c", "a\\ b"}) {
    EXPECT_TRUE(needs_shell(shell)) << shell;
  }
}

TEST(GuestInit, FindsAModuleByItsName) {
  constexpr std::string_view kList =
      "kernel/drivers/virtio/virtio.ko:\n"
      "kernel/drivers/virtio/virtio_pci_modern_dev.ko.xz: kernel/drivers/virtio/virtio.ko\n"
      "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/b.ko.xz kernel/a.ko.xz\n"
      "flat.ko: virtio.ko";
  EXPECT_EQ(find_module(kList, "virtio_pci"), "kernel/drivers/virtio/virtio_pci.ko.xz: kernel/b.ko.xz kernel/a.ko.xz");
  EXPECT_EQ(find_module(kList, "virtio"), "kernel/drivers/virtio/virtio.ko:");
  EXPECT_EQ(find_module(kList, "flat"), "flat.ko: virtio.ko") << "the last line need not end";
  for (const auto* absent : {"virtio_console", "pci", "kernel", "virtio_pci.ko", "a"}) {
    EXPECT_EQ(find_module(kList, absent), "") << absent;
  }
  EXPECT_EQ(find_module("", "virtio"), "");
  EXPECT_EQ(find_module("\n\n:\n/\n:::", "virtio"), "");
}

TEST(GuestInit, TellsEveryStatus) {
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(status_line(W_EXITCODE(code, 0)).view(), "exit " + std::to_string(code) + "\n");
  }
  for (int signal = 1; signal <= 64; ++signal) {
    EXPECT_EQ(status_line(W_EXITCODE(0, signal)).view(), "signal " + std::to_string(signal) + "\n");
    EXPECT_EQ(status_line(W_EXITCODE(0, signal) | WCOREFLAG).view(), "signal " + std::to_string(signal) + "\n");
  }
}

TEST(GuestInit, IsAStaticProgramOfAFewKib) {
  const auto image = martlet::guest_init();
  ASSERT_GT(image.size(), 64U);
  EXPECT_LT(image.size(), 32U << 10U);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(image.data()), 4),
            "\x7f"
            "ELF");
  EXPECT_EQ(std::to_integer<int>(image[16]), 2) << "ET_EXEC: no loader needed";
}

}  // namespace
}  // namespace guest
