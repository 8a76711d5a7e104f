// Console output of any kind, in any slicing: the judge and the reader of test results take it, what they keep is
// bounded, and the report is well-formed.

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>

#include "tests/unit/xml_check.h"
#include "vmm/debug/judge.h"
#include "vmm/debug/junit.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace martlet;
  if (size < 2) {
    return 0;
  }
  const std::size_t slice = data[0] % 64U + 1U;
  const auto ending = data[1] % 2 == 0 ? Ending::Kind::PowerOff : Ending::Kind::TripleFault;
  const auto console = std::as_bytes(std::span{data + 2, size - 2});
  Judge judge{{.expect = {"login: $", "(a+)+b"}, .forbid = {"^FAIL"}}};
  for (std::size_t at = 0; at < console.size(); at += slice) {
    judge.hear(at % 5 == 0 ? ConsoleName::Hvc : ConsoleName::Serial,
               console.subspan(at, std::min(slice, console.size() - at)), {});
  }
  const auto verdict = judge.conclude({.kind = ending}, {});
  const bool json = nlohmann::json::accept(to_json(verdict, {}));
  if (!json || !test::xml_fault(to_junit(verdict)).empty() || verdict.findings.size() > 300 ||
      verdict.exit_code > 126) {
    __builtin_trap();
  }
  return 0;
}
