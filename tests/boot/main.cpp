// The boot tests' program: GoogleTest's main(), which gives a case that failed in the lab a second chance, out loud.

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>

namespace {

// More than these are no fault of the lab's CPU.
constexpr std::size_t kMostByChance = 2;
// Set in the second run.
constexpr const char* kAgain = "MARTLET_BOOT_TESTS_AGAIN";

/// The cases that failed, as --gtest_filter wants them.
class Failed : public testing::EmptyTestEventListener {
 public:
  void OnTestEnd(const testing::TestInfo& test) override {
    if (test.result()->Failed()) {
      filter_.append(filter_.empty() ? "" : ":").append(test.test_suite_name()).append(".").append(test.name());
      ++count_;
    }
  }

  [[nodiscard]] std::size_t count() const { return count_; }
  [[nodiscard]] const std::string& filter() const { return filter_; }

 private:
  std::size_t count_ = 0;
  std::string filter_;
};

/// Whether guests run on an emulated CPU: the tests are in the lab, or start one themselves (tests/lab/with-kvm).
bool emulated() {
  if (std::getenv("MARTLET_LAB") != nullptr) {
    return true;
  }
  std::ifstream file{"/proc/cpuinfo"};
  const std::string cpu{std::istreambuf_iterator<char>{file}, {}};
  return !std::regex_search(cpu, std::regex{"\\b(vmx|svm)\\b"});
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto* failed = new Failed;  // GoogleTest's from now on
  testing::UnitTest::GetInstance()->listeners().Append(failed);
  const int status = RUN_ALL_TESTS();
  // Not where each of several rounds must pass.
  const bool chance = std::getenv(kAgain) == nullptr && GTEST_FLAG_GET(repeat) == 1 && failed->count() > 0 &&
                      failed->count() <= kMostByChance;
  if (status == 0 || !chance || !emulated()) {
    return status;
  }
  std::printf("boot_tests: in the lab, whose CPU is emulated: once more what failed: %s\n", failed->filter().c_str());
  std::fflush(stdout);
  std::string name = "boot_tests";
  std::string filter = "--gtest_filter=" + failed->filter();
  setenv(kAgain, "1", 1);
  std::array<char*, 3> arguments{name.data(), filter.data(), nullptr};
  execv("/proc/self/exe", arguments.data());
  std::perror("boot_tests: cannot run itself again");
  return status;
}
