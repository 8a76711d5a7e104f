#include "vmm/base/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

#include "vmm/base/error.h"
#include "vmm/base/units.h"

namespace martlet {
namespace {

/// Splits at single commas; a double one is a comma.
std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> items(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      items.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      items.back() += text[i++];
    } else {
      items.emplace_back();
    }
  }
  return items;
}

/// Levenshtein's distance: single-character edits between two words.
std::size_t edit_distance(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), 0U);
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::size_t substituted = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

}  // namespace

Options::Options(std::string_view text, std::string_view what) : what_{what} {
  for (const auto& item : split(text)) {
    const auto equals = item.find('=');
    if (equals == 0 || item.empty()) {
      throw HostError{fmt::format("{}: '{}' has an empty item; write it like key=value,key=value", what, text)};
    }
    const auto key = item.substr(0, equals);
    items_.push_back({.key = key});
    if (equals != std::string::npos) {
      items_.back().value = item.substr(equals + 1);
    }
  }
}

Options::Item* Options::find(std::string_view key) {
  known_.emplace_back(key);
  const auto found = std::ranges::find(items_, key, &Item::key);
  if (found == items_.end() || found->taken) {
    return nullptr;
  }
  if (std::ranges::count(items_, key, &Item::key) > 1) {
    throw HostError{fmt::format("{}: {} is given twice", what_, key)};
  }
  found->taken = true;
  return &*found;
}

std::optional<std::string> Options::take(std::string_view key) {
  const auto* const item = find(key);
  if (item == nullptr) {
    return std::nullopt;
  }
  if (!item->value || item->value->empty()) {
    throw HostError{fmt::format("{} needs a value", name_of(key))};
  }
  return item->value;
}

std::vector<std::string> Options::take_all(std::string_view key) {
  known_.emplace_back(key);
  std::vector<std::string> values;
  for (auto& item : items_) {
    if (item.key == key) {
      if (!item.value || item.value->empty()) {
        throw HostError{fmt::format("{} needs a value", name_of(key))};
      }
      item.taken = true;
      values.push_back(*item.value);
    }
  }
  return values;
}

std::optional<std::string> Options::take_first(std::string_view key) {
  if (auto named = take(key)) {
    return named;
  }
  auto& first = items_.front();
  if (first.value || first.taken) {
    return std::nullopt;
  }
  first.taken = true;
  return first.key;
}

std::optional<bool> Options::take_flag(std::string_view key) {
  const auto* const item = find(key);
  if (item == nullptr) {
    return std::nullopt;
  }
  const auto& word = item->value;
  if (word && *word != "on" && *word != "off") {
    refuse_choice(key, *word, std::array<std::string_view, 2>{"on", "off"});
  }
  return !word || *word == "on";
}

std::optional<std::uint64_t> Options::take_size(std::string_view key) {
  const auto text = take(key);
  return text ? std::optional{parse_bytes(*text, name_of(key))} : std::nullopt;
}

std::optional<std::uint64_t> Options::take_number(std::string_view key, Limits limits) {
  const auto text = take(key);
  if (!text) {
    return std::nullopt;
  }
  std::uint64_t number = 0;
  const auto* const end = text->data() + text->size();
  const auto [rest, error] = std::from_chars(text->data(), end, number);
  if (error != std::errc{} || rest != end || number < limits.min || number > limits.max) {
    const auto range = limits.max == Limits{}.max ? fmt::format("{} or more", limits.min)
                                                  : fmt::format("{} to {}", limits.min, limits.max);
    throw HostError{fmt::format("{}: '{}' is not a whole number, {}", name_of(key), *text, range)};
  }
  return number;
}

void Options::finish() const {
  for (const auto& item : items_) {
    if (!item.taken) {
      throw HostError{fmt::format("{}: '{}' is unknown{}", what_, item.key, did_you_mean(item.key, known_))};
    }
  }
}

std::string Options::name_of(std::string_view key) const { return fmt::format("{} {}", what_, key); }

void Options::refuse_choice(std::string_view key, std::string_view word,
                            std::span<const std::string_view> choices) const {
  throw HostError{fmt::format("{}: '{}' is none of {}", name_of(key), word, fmt::join(choices, ", "))};
}

std::string did_you_mean(std::string_view word, std::span<const std::string> known) {
  const auto nearest =
      std::ranges::min_element(known, {}, [&](const std::string& name) { return edit_distance(word, name); });
  const bool close =
      nearest != known.end() && edit_distance(word, *nearest) <= std::max<std::size_t>(2, word.size() / 3);
  return close ? fmt::format(", did you mean {}?", *nearest) : "";
}

}  // namespace martlet
