#include <fmt/format.h>

#include <array>
#include <utility>

#include "net/switch.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::string_view kFinished = "martlet";
constexpr std::string_view kUnfinished = "martlet-unfinished";
constexpr std::array<std::pair<SwitchMode, std::string_view>, 3> kWords{
    {{SwitchMode::Private, "private"}, {SwitchMode::Internal, "internal"}, {SwitchMode::External, "external"}}};

/// Takes the first word off `text`.
std::string_view take_word(std::string_view& text) {
  const auto end = text.find(' ');
  const auto word = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return word;
}

}  // namespace

std::string_view to_word(SwitchMode mode) noexcept {
  for (const auto& [known, word] : kWords) {
    if (known == mode) {
      return word;
    }
  }
  return "?";
}

std::optional<SwitchMode> switch_mode(std::string_view word) noexcept {
  for (const auto& [mode, known] : kWords) {
    if (known == word) {
      return mode;
    }
  }
  return std::nullopt;
}

std::string to_alias(const SwitchMark& mark) {
  const auto& options = mark.options;
  auto alias = fmt::format("{} {}", mark.finished ? kFinished : kUnfinished, to_word(options.mode));
  if (!options.uplink.empty()) {
    alias += " uplink=" + options.uplink;
  }
  for (const auto& address : options.addresses) {
    alias += " address=" + to_string(address);
  }
  alias += options.dhcp ? " dhcp" : "";
  alias += options.nat ? " nat" : "";
  alias += options.persistent ? " persistent" : "";
  alias += mark.uplink_was_down ? " uplink-was-down" : "";
  return alias;
}

std::optional<SwitchMark> read_mark(const Link& link) {
  std::string_view rest = link.alias;
  const auto first = take_word(rest);
  const auto mode = switch_mode(take_word(rest));
  if (link.kind != "bridge" || (first != kFinished && first != kUnfinished) || !mode) {
    return std::nullopt;
  }
  SwitchMark mark{.finished = first == kFinished, .options = {.name = link.name, .mode = *mode}};
  constexpr std::string_view kUplink = "uplink=";
  constexpr std::string_view kAddress = "address=";
  while (!rest.empty()) {
    const auto word = take_word(rest);
    if (word.starts_with(kUplink)) {
      mark.options.uplink = word.substr(kUplink.size());
    } else if (word.starts_with(kAddress)) {
      try {
        mark.options.addresses.push_back(parse_host_address(word.substr(kAddress.size()), ""));
      } catch (const HostError&) {  // others' words
        return std::nullopt;
      }
    }
    mark.options.dhcp |= word == "dhcp";
    mark.options.nat |= word == "nat";
    mark.options.persistent |= word == "persistent";
    mark.uplink_was_down |= word == "uplink-was-down";
  }
  return mark;
}

}  // namespace martlet
