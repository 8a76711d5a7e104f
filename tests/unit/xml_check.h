#pragma once
// Whether a text is well-formed XML, as far as a report of ours goes: elements, attributes, five entities, UTF-8.

#include <string>
#include <string_view>
#include <vector>

namespace martlet::test {

/// Empty, or what is wrong.
inline std::string xml_fault(std::string_view xml) {
  const auto bad_text = [](std::string_view text) -> std::string {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte < 0x20 && byte != '\n' && byte != '\t') {
        return "a control character";
      }
      if (byte == '&') {
        const auto entity = text.substr(i, text.find(';', i) - i);
        if (entity != "&amp" && entity != "&lt" && entity != "&gt" && entity != "&quot" && entity != "&#10") {
          return "an entity: " + std::string{entity.substr(0, 10)};
        }
      }
      if (byte >= 0x80) {
        const std::size_t more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
        if (byte < 0xc2 || byte > 0xf4 || i + more >= text.size()) {
          return "no UTF-8";
        }
        if (byte == 0xed && static_cast<unsigned char>(text[i + 1]) >= 0xa0) {
          return "a surrogate";
        }
        for (std::size_t k = 0; k < more; ++k) {
          if ((static_cast<unsigned char>(text[++i]) & 0xc0U) != 0x80) {
            return "no UTF-8";
          }
        }
      }
    }
    return {};
  };
  std::vector<std::string_view> open;
  bool had_root = false;
  while (!xml.empty()) {
    const auto tag = xml.find('<');
    const auto text = xml.substr(0, tag);
    if (auto fault = bad_text(text); !fault.empty()) {
      return fault;
    }
    if (open.empty() && text.find_first_not_of(" \n") != std::string_view::npos) {
      return "text outside of the root";
    }
    if (tag == std::string_view::npos) {
      break;
    }
    const auto end = xml.find('>', tag);
    if (end == std::string_view::npos) {
      return "a tag without end";
    }
    auto inside = xml.substr(tag + 1, end - tag - 1);
    xml.remove_prefix(end + 1);
    if (inside.starts_with('?')) {
      continue;
    }
    if (inside.starts_with('/')) {
      if (open.empty() || open.back() != inside.substr(1)) {
        return "closed, but not open: " + std::string{inside};
      }
      open.pop_back();
      continue;
    }
    const bool is_empty = inside.ends_with('/');
    inside.remove_suffix(is_empty ? 1 : 0);
    const auto name = inside.substr(0, inside.find(' '));
    if (open.empty() && had_root) {
      return "a second root";
    }
    had_root = true;
    inside.remove_prefix(name.size());
    while (!inside.empty()) {
      const auto quote = inside.find("=\"");
      const auto close = quote == std::string_view::npos ? quote : inside.find('"', quote + 2);
      if (!inside.starts_with(' ') || close == std::string_view::npos) {
        return "an attribute: " + std::string{inside};
      }
      const auto value = inside.substr(quote + 2, close - quote - 2);
      if (auto fault = bad_text(value); !fault.empty() || value.find('<') != std::string_view::npos) {
        return "in an attribute: " + fault;
      }
      inside.remove_prefix(close + 1);
    }
    if (!is_empty) {
      open.push_back(name);
    }
  }
  return open.empty() && had_root ? "" : "not closed";
}

}  // namespace martlet::test
