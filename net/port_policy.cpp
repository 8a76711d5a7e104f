#include "net/port_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::uint16_t kLastVlan = 4094;     // IEEE 802.1Q §9.6: 0 is no VLAN, 4095 reserved
constexpr std::uint64_t kMost = 1ULL << 50U;  // exact in a double
constexpr std::size_t kLongestFile = 64U << 10U;

std::uint16_t parse_vlan(std::string_view text, const std::string& what) {
  std::uint16_t vlan = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), vlan);
  if (error != std::errc{} || end != text.data() + text.size() || vlan == 0 || vlan > kLastVlan) {
    throw HostError{fmt::format("{}: '{}' is no VLAN; expected 1 to {}", what, text, kLastVlan)};
  }
  return vlan;
}

/// "10-20+30"
std::vector<VlanRange> parse_vlans(std::string_view text, const std::string& what) {
  std::vector<VlanRange> ranges;
  for (std::size_t start = 0; start <= text.size();) {
    const auto item = text.substr(start, text.find('+', start) - start);
    start += item.size() + 1;
    const auto dash = item.find('-');
    const auto first = parse_vlan(item.substr(0, dash), what);
    const auto last = dash == std::string_view::npos ? first : parse_vlan(item.substr(dash + 1), what);
    if (last < first) {
      throw HostError{fmt::format("{}: {} ends before it begins", what, item)};
    }
    for (const auto& other : ranges) {
      if (first <= other.last && other.first <= last) {
        throw HostError{fmt::format("{}: {} overlaps {}-{}", what, item, other.first, other.last)};
      }
    }
    ranges.push_back({first, last});
  }
  return ranges;
}

std::string to_text(const std::vector<VlanRange>& ranges) {
  std::string text;
  for (const auto& [first, last] : ranges) {
    text += fmt::format("{}{}", text.empty() ? "" : "+", first);
    text += last == first ? "" : fmt::format("-{}", last);
  }
  return text;
}

/// None of the keys: nothing.
std::optional<PortVlans> take_vlans(Options& options, std::string_view what) {
  const auto access = options.take("vlan");
  const auto trunk = options.take("vlans");
  const auto native = options.take("native");
  if (!access && !trunk && !native) {
    return std::nullopt;
  }
  PortVlans vlans;
  if (access) {
    if (trunk || native) {
      throw HostError{fmt::format("{}vlan= is one VLAN without tags; leave vlans= and native= out", what)};
    }
    vlans.native = parse_vlan(*access, fmt::format("{}vlan={}", what, *access));
    vlans.ranges = {{vlans.native, vlans.native}};
    return vlans;
  }
  if (!trunk) {
    throw HostError{fmt::format("{}native= wants vlans= too; one VLAN without tags is vlan={}", what, *native)};
  }
  vlans.ranges = parse_vlans(*trunk, fmt::format("{}vlans={}", what, *trunk));
  if (native) {
    vlans.native = parse_vlan(*native, fmt::format("{}native={}", what, *native));
    if (std::ranges::none_of(vlans.ranges, [&](const VlanRange& range) {
          return range.first <= vlans.native && vlans.native <= range.last;
        })) {
      throw HostError{fmt::format("{}native={}: not one of vlans={}", what, *native, *trunk)};
    }
  }
  vlans.normalise();
  return vlans;
}

}  // namespace

void PortVlans::normalise() {
  std::ranges::sort(ranges, {}, &VlanRange::first);
  std::vector<VlanRange> merged;
  for (const auto& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  ranges = std::move(merged);
}

PortPolicy take_policy(Options& options, const PortPolicy& policy, std::string_view what) {
  PortPolicy taken = policy;
  if (const auto mac = options.take("mac")) {
    taken.mac = parse_mac(*mac, fmt::format("{}mac=", what));
  }
  // RFC 791: no IPv4 link may carry less than 68 bytes.
  if (const auto mtu = options.take_number("mtu", {.min = 68, .max = 65535})) {
    taken.mtu = static_cast<std::uint16_t>(*mtu);
  }
  taken.spoof =
      options.take_choice<Spoof>("spoof", {{"deny", Spoof::Deny}, {"allow", Spoof::Allow}}).value_or(taken.spoof);
  if (auto vlans = take_vlans(options, what)) {
    taken.vlans = std::move(*vlans);
  }
  if (const auto isolated = options.take_flag("isolated")) {
    taken.isolation = *isolated ? Isolation::On : Isolation::Off;
  }
  const auto rate = options.take_size("rate");
  const auto burst = options.take_size("burst");
  if (rate) {
    taken.rate = *rate;
    taken.burst = 0;
  }
  taken.burst = burst.value_or(taken.burst);
  if (rate && *rate == 0) {
    throw HostError{fmt::format("{}rate=0: nothing would ever pass; leave it out for no limit", what)};
  }
  if (burst && taken.rate == 0) {
    throw HostError{fmt::format("{}burst= wants rate= too", what)};
  }
  if (taken.rate > kMost || taken.burst > kMost) {
    throw HostError{fmt::format("{}rate= and burst=: at most 1024T; leave them out for no limit", what)};
  }
  taken.pcap = options.take("pcap").value_or(taken.pcap);
  return taken;
}

PortPolicy parse_policy(const std::string& text, const std::string& what) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) {
    throw HostError{fmt::format("{}: expected a JSON object, such as martlet net show --port prints", what)};
  }
  // The same keys as an option's, by the same rules.
  std::string list;
  for (const auto& [key, value] : json.items()) {
    std::string word = value.is_string()            ? value.get<std::string>()
                       : value.is_number_unsigned() ? std::to_string(value.get<std::uint64_t>())
                       : value.is_boolean()         ? (value.get<bool>() ? "on" : "off")
                                                    : "";
    const auto odd = [](const std::string& it) {
      return it.empty() || std::ranges::any_of(it, [](char c) { return static_cast<unsigned char>(c) < ' '; });
    };
    if (odd(word) || odd(key) || key.find_first_of(",=") != std::string::npos) {
      throw HostError{fmt::format("{}: {} cannot be {}", what, nlohmann::json(key).dump(-1, ' ', true),
                                  value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace))};
    }
    for (std::size_t comma = 0; (comma = word.find(',', comma)) != std::string::npos; comma += 2) {
      word.insert(comma, 1, ',');
    }
    list += fmt::format("{}{}={}", list.empty() ? "" : ",", key, word);
  }
  if (list.empty()) {
    return {};
  }
  Options options{list, what};
  auto policy = take_policy(options, {}, what + ": ");
  options.finish();
  return policy;
}

PortPolicy read_policy_file(const std::string& path) {
  const auto what = "policy=" + path;
  std::ifstream file{path, std::ios::binary};
  std::string text(kLongestFile, '\0');
  if (!file || (file.read(text.data(), static_cast<std::streamsize>(text.size())), file.bad())) {
    fail_errno(errno != 0 ? errno : EIO, what + ": cannot be read");
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse_policy(text, what);
}

std::string to_json(const PortPolicy& policy) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (policy.mac) {
    json["mac"] = to_string(*policy.mac);
  }
  json["spoof"] = policy.spoof == Spoof::Deny ? "deny" : "allow";
  if (policy.vlans.is_access()) {
    json["vlan"] = policy.vlans.native;
  } else if (policy.vlans.any()) {
    json["vlans"] = to_text(policy.vlans.ranges);
    if (policy.vlans.native != 0) {
      json["native"] = policy.vlans.native;
    }
  }
  json["isolated"] = policy.isolation == Isolation::On;
  if (policy.mtu) {
    json["mtu"] = *policy.mtu;
  }
  if (policy.rate != 0) {
    json["rate"] = policy.rate;
  }
  if (policy.burst != 0) {
    json["burst"] = policy.burst;
  }
  if (!policy.pcap.empty()) {
    json["pcap"] = policy.pcap;
  }
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace martlet
