#pragma once
// Reads capture files as strangers do: draft-ietf-opsawg-pcapng, little-endian, one section.

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace martlet::test {

struct Captured {
  using Options = std::map<std::uint16_t, std::string>;
  struct Packet {
    std::uint32_t interface = 0;
    std::uint64_t time = 0;
    std::string bytes{};
    std::uint32_t direction = 0;  ///< 1 in, 2 out
    std::uint64_t lost = 0;
  };
  struct Statistics {
    std::uint32_t interface = 0;
    std::uint64_t seen = 0;
    std::uint64_t dropped = 0;
  };

  std::string application{};
  std::vector<Options> interfaces{};
  std::vector<Packet> packets{};
  std::vector<Statistics> statistics{};
  bool cut = false;  ///< the last block is not all there
  std::string wrong{};

  template <class Value>
  static Value number(std::string_view bytes, std::size_t at = 0) {
    Value value{};
    if (at + sizeof value <= bytes.size()) {
      std::memcpy(&value, bytes.data() + at, sizeof value);
    }
    return value;
  }
  static std::uint64_t time(std::string_view bytes, std::size_t at) {
    return std::uint64_t{number<std::uint32_t>(bytes, at)} << 32U | number<std::uint32_t>(bytes, at + 4);
  }

  Options read_options(std::string_view bytes) {
    Options options;
    while (bytes.size() >= 4) {
      const auto code = number<std::uint16_t>(bytes);
      const std::size_t size = number<std::uint16_t>(bytes, 2);
      const std::size_t padded = 4 + (size + 3) / 4 * 4;
      if (code == 0 || padded > bytes.size()) {
        wrong += code == 0 && size == 0 && bytes.size() == 4 ? "" : "bad end of options; ";
        return options;
      }
      options[code] = bytes.substr(4, size);
      bytes.remove_prefix(padded);
    }
    wrong += "no end of options; ";
    return options;
  }

  explicit Captured(std::string_view file) {
    for (bool first = true; !file.empty(); first = false) {
      const auto type = number<std::uint32_t>(file);
      const std::size_t length = number<std::uint32_t>(file, 4);
      if (file.size() < 8 || length > file.size()) {
        cut = true;
        return;
      }
      if (length < 12 || length % 4 != 0 || number<std::uint32_t>(file, length - 4) != length ||
          first != (type == 0x0a0d0d0a)) {
        wrong += "bad block; ";
        return;
      }
      read(type, file.substr(8, length - 12));
      file.remove_prefix(length);
    }
  }

  void read(std::uint32_t type, std::string_view body) {
    switch (type) {
      case 0x0a0d0d0a:
        if (number<std::uint32_t>(body) != 0x1a2b3c4d || number<std::uint32_t>(body, 4) != 1) {
          wrong += "bad section; ";
        }
        application = read_options(body.substr(16))[4];
        break;
      case 1: {
        const auto options = read_options(body.substr(8));
        if (number<std::uint16_t>(body) != 1 || number<std::uint32_t>(body, 4) != 0 || !options.contains(9) ||
            options.at(9) != "\t") {
          wrong += "not Ethernet, whole frames, nanoseconds; ";
        }
        interfaces.push_back(options);
        break;
      }
      case 5: {
        auto options = read_options(body.substr(12));
        statistics.push_back({.interface = number<std::uint32_t>(body),
                              .seen = number<std::uint64_t>(options[4]),
                              .dropped = number<std::uint64_t>(options[5])});
        break;
      }
      case 6: {
        const std::size_t size = number<std::uint32_t>(body, 12);
        if (number<std::uint32_t>(body, 16) != size || (size + 3) / 4 * 4 + 20 > body.size() ||
            number<std::uint32_t>(body) >= interfaces.size()) {
          wrong += "bad packet; ";
          return;
        }
        auto options = read_options(body.substr(20 + (size + 3) / 4 * 4));
        packets.push_back({.interface = number<std::uint32_t>(body),
                           .time = time(body, 4),
                           .bytes = std::string{body.substr(20, size)},
                           .direction = number<std::uint32_t>(options[2]),
                           .lost = number<std::uint64_t>(options[4])});
        break;
      }
      default:
        wrong += "unknown block; ";
    }
  }
};

}  // namespace martlet::test
