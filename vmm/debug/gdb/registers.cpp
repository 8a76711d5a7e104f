#include "vmm/debug/gdb/registers.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace martlet::gdb {
namespace {

/// gdb's names for groups of registers; it looks for the registers it knows in these.
enum class Feature { Core, Segments, System, Sse, Avx };

struct Register {
  std::string name;
  std::size_t size;  // bytes
  std::string type;
  Feature feature;
  bool CpuParts::*part;
};

// Numbers of the first of each kind.
constexpr std::size_t kGeneral = 0;
constexpr std::size_t kSelectors = 18;
constexpr std::size_t kBases = 24;  // FS, GS, kernel GS
constexpr std::size_t kControl = 27;
constexpr std::size_t kStack = 33;     // ST0 to ST7
constexpr std::size_t kX87State = 41;  // FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP
constexpr std::size_t kTags = kX87State + 2;
constexpr std::size_t kVectors = 49;
constexpr std::size_t kMxcsr = 65;
constexpr std::size_t kVectorsHigh = 66;
constexpr std::size_t kEnd = 82;

std::vector<Register> make_registers() {
  std::vector<Register> all;
  const auto add = [&](Feature feature, bool CpuParts::*part, std::size_t size, const char* type,
                       std::initializer_list<const char*> names) {
    for (const char* name : names) {
      all.push_back({.name = name, .size = size, .type = type, .feature = feature, .part = part});
    }
  };
  const auto add_row = [&](Feature feature, bool CpuParts::*part, std::size_t size, const char* type, const char* name,
                           int count) {
    for (int i = 0; i < count; ++i) {
      all.push_back(
          {.name = fmt::format(fmt::runtime(name), i), .size = size, .type = type, .feature = feature, .part = part});
    }
  };
  const auto regs = &CpuParts::regs;
  const auto sregs = &CpuParts::sregs;
  const auto fpu = &CpuParts::fpu;
  add(Feature::Core, regs, 8, "int64", {"rax", "rbx", "rcx", "rdx", "rsi", "rdi"});
  add(Feature::Core, regs, 8, "data_ptr", {"rbp", "rsp"});
  add(Feature::Core, regs, 8, "int64", {"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"});
  add(Feature::Core, regs, 8, "code_ptr", {"rip"});
  add(Feature::Core, regs, 4, "x86_eflags", {"eflags"});
  add(Feature::Core, sregs, 4, "int32", {"cs", "ss", "ds", "es", "fs", "gs"});
  add(Feature::Segments, sregs, 8, "int64", {"fs_base", "gs_base"});
  add(Feature::System, &CpuParts::kernel_gs_base, 8, "int64", {"k_gs_base"});
  add(Feature::System, sregs, 8, "x86_cr0", {"cr0"});
  add(Feature::System, sregs, 8, "int64", {"cr2", "cr3"});
  add(Feature::System, sregs, 8, "x86_cr4", {"cr4"});
  add(Feature::System, sregs, 8, "int64", {"cr8"});
  add(Feature::System, sregs, 8, "x86_efer", {"efer"});
  add_row(Feature::Core, fpu, 10, "i387_ext", "st{}", 8);
  add(Feature::Core, fpu, 4, "int", {"fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"});
  add_row(Feature::Sse, fpu, 16, "vec128", "xmm{}", 16);
  add(Feature::Sse, fpu, 4, "int", {"mxcsr"});
  add_row(Feature::Avx, &CpuParts::ymm_high, 16, "uint128", "ymm{}h", 16);
  return all;
}

const std::vector<Register>& registers() {
  static const std::vector<Register> kAll = make_registers();
  return kAll;
}

constexpr std::array kGeneralOrder{&kvm_regs::rax, &kvm_regs::rbx, &kvm_regs::rcx,   &kvm_regs::rdx, &kvm_regs::rsi,
                                   &kvm_regs::rdi, &kvm_regs::rbp, &kvm_regs::rsp,   &kvm_regs::r8,  &kvm_regs::r9,
                                   &kvm_regs::r10, &kvm_regs::r11, &kvm_regs::r12,   &kvm_regs::r13, &kvm_regs::r14,
                                   &kvm_regs::r15, &kvm_regs::rip, &kvm_regs::rflags};
constexpr std::array kSelectorOrder{&kvm_sregs::cs, &kvm_sregs::ss, &kvm_sregs::ds,
                                    &kvm_sregs::es, &kvm_sregs::fs, &kvm_sregs::gs};
constexpr std::array kControlOrder{&kvm_sregs::cr0, &kvm_sregs::cr2, &kvm_sregs::cr3,
                                   &kvm_sregs::cr4, &kvm_sregs::cr8, &kvm_sregs::efer};

template <class T>
auto bytes_of(T& object) {
  const std::span<T, 1> one{&object, 1};
  if constexpr (std::is_const_v<T>) {
    return std::span<const std::byte>{std::as_bytes(one)};
  } else {
    return std::span<std::byte>{std::as_writable_bytes(one)};
  }
}

/// Where register `number` is kept, which may be fewer or more bytes than gdb has for it. FTAG is kept nowhere.
template <class State>
auto place_of(State& state, std::size_t number) {
  auto& fpu = state.fpu;
  if (number < kSelectors) {
    return bytes_of(state.regs.*kGeneralOrder[number - kGeneral]);
  }
  if (number < kBases) {
    return bytes_of((state.sregs.*kSelectorOrder[number - kSelectors]).selector);
  }
  if (number < kControl) {
    return number == kBases       ? bytes_of(state.sregs.fs.base)
           : number == kBases + 1 ? bytes_of(state.sregs.gs.base)
                                  : bytes_of(state.kernel_gs_base);
  }
  if (number < kStack) {
    return bytes_of(state.sregs.*kControlOrder[number - kControl]);
  }
  if (number < kX87State) {
    return bytes_of(fpu.fpr[number - kStack]);
  }
  if (number < kVectors) {
    const std::array places{bytes_of(fpu.fcw),
                            bytes_of(fpu.fsw),
                            bytes_of(fpu.ftwx),
                            bytes_of(fpu.last_ip).subspan(4),
                            bytes_of(fpu.last_ip).first(4),
                            bytes_of(fpu.last_dp).subspan(4),
                            bytes_of(fpu.last_dp).first(4),
                            bytes_of(fpu.last_opcode)};
    return places[number - kX87State];
  }
  if (number < kMxcsr) {
    return bytes_of(fpu.xmm[number - kVectors]);
  }
  return number == kMxcsr ? bytes_of(fpu.mxcsr) : bytes_of(state.ymm_high[number - kVectorsHigh]);
}

constexpr unsigned kEmptyTag = 3;

/// KVM keeps the tags as FXSAVE does, a bit for "not empty"; gdb wants two bits each. Which of the not empty ones
/// are zero or special, gdb works out by itself.
std::uint32_t full_tags(std::uint8_t abridged) {
  std::uint32_t tags = 0;
  for (unsigned i = 0; i < 8; ++i) {
    tags |= (abridged >> i & 1U) != 0 ? 0U : kEmptyTag << 2 * i;
  }
  return tags;
}

std::uint8_t abridged_tags(std::uint32_t tags) {
  unsigned abridged = 0;
  for (unsigned i = 0; i < 8; ++i) {
    abridged |= (tags >> 2 * i & kEmptyTag) != kEmptyTag ? 1U << i : 0U;
  }
  return static_cast<std::uint8_t>(abridged);
}

struct Flag {
  const char* name;
  unsigned bit;
};
constexpr Flag kEflags[] = {{"CF", 0},  {"PF", 2},   {"AF", 4},   {"ZF", 6},  {"SF", 7},  {"TF", 8},
                            {"IF", 9},  {"DF", 10},  {"OF", 11},  {"NT", 14}, {"RF", 16}, {"VM", 17},
                            {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}};
constexpr Flag kCr0[] = {{"PE", 0},  {"MP", 1},  {"EM", 2},  {"TS", 3},  {"ET", 4}, {"NE", 5},
                         {"WP", 16}, {"AM", 18}, {"NW", 29}, {"CD", 30}, {"PG", 31}};
constexpr Flag kCr4[] = {{"VME", 0},   {"PVI", 1},   {"TSD", 2},       {"DE", 3},     {"PSE", 4},         {"PAE", 5},
                         {"MCE", 6},   {"PGE", 7},   {"PCE", 8},       {"OSFXSR", 9}, {"OSXMMEXCPT", 10}, {"UMIP", 11},
                         {"LA57", 12}, {"VMXE", 13}, {"FSGSBASE", 16}, {"PCIDE", 17}, {"OSXSAVE", 18},    {"SMEP", 20},
                         {"SMAP", 21}, {"PKE", 22},  {"CET", 23}};
constexpr Flag kEfer[] = {{"SCE", 0}, {"LME", 8}, {"LMA", 10}, {"NXE", 11}, {"SVME", 12}};

std::string flags_type(const char* id, int size, std::span<const Flag> flags) {
  std::string xml = fmt::format(R"(<flags id="{}" size="{}">)", id, size);
  for (const auto& flag : flags) {
    xml += fmt::format(R"(<field name="{0}" start="{1}" end="{1}"/>)", flag.name, flag.bit);
  }
  return xml + "</flags>\n";
}

std::string types_of(Feature feature) {
  if (feature == Feature::Core) {
    return flags_type("x86_eflags", 4, kEflags);
  }
  if (feature == Feature::System) {
    return flags_type("x86_cr0", 8, kCr0) + flags_type("x86_cr4", 8, kCr4) + flags_type("x86_efer", 8, kEfer);
  }
  if (feature == Feature::Sse) {
    return "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
           "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
           "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\n"
           "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
           "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
           "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
           "<field name=\"uint128\" type=\"uint128\"/></union>\n";
  }
  return {};
}

std::size_t count_with(bool has_avx) { return has_avx ? kEnd : kVectorsHigh; }

}  // namespace

std::size_t register_count(const CpuState& state) noexcept { return count_with(state.has_avx); }

std::size_t size_of_register(std::size_t number) noexcept { return registers()[number].size; }

std::string read_register(const CpuState& state, std::size_t number) {
  std::string bytes(size_of_register(number), '\0');
  if (number == kTags) {
    const std::uint32_t tags = full_tags(state.fpu.ftwx);
    std::memcpy(bytes.data(), &tags, sizeof tags);
  } else {
    const auto place = place_of(state, number);
    std::memcpy(bytes.data(), place.data(), std::min(place.size(), bytes.size()));
  }
  return bytes;
}

std::string read_registers(const CpuState& state) {
  std::string all;
  for (std::size_t number = 0; number < register_count(state); ++number) {
    all += read_register(state, number);
  }
  return all;
}

bool write_register(CpuState& state, std::size_t number, std::string_view bytes, CpuParts& parts) {
  if (bytes.size() != size_of_register(number)) {
    return false;
  }
  if (bytes == read_register(state, number)) {
    return true;
  }
  if (number >= kSelectors && number < kBases) {
    return false;
  }
  parts.*registers()[number].part = true;
  if (number == kTags) {
    std::uint32_t tags = 0;
    std::memcpy(&tags, bytes.data(), sizeof tags);
    state.fpu.ftwx = abridged_tags(tags);
  } else {
    const auto place = place_of(state, number);
    std::memcpy(place.data(), bytes.data(), std::min(place.size(), bytes.size()));
  }
  return true;
}

std::string target_description(bool has_avx) {
  struct Named {
    Feature feature;
    const char* name;
  };
  constexpr Named kFeatures[] = {{Feature::Core, "org.gnu.gdb.i386.core"},
                                 {Feature::Segments, "org.gnu.gdb.i386.segments"},
                                 {Feature::System, "org.martlet.x86.system"},
                                 {Feature::Sse, "org.gnu.gdb.i386.sse"},
                                 {Feature::Avx, "org.gnu.gdb.i386.avx"}};
  std::string xml =
      "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
      "<target version=\"1.0\">\n<architecture>i386:x86-64</architecture>\n";
  for (const auto& [feature, name] : kFeatures) {
    if (feature == Feature::Avx && !has_avx) {
      continue;
    }
    xml += fmt::format("<feature name=\"{}\">\n{}", name, types_of(feature));
    for (std::size_t number = 0; number < count_with(has_avx); ++number) {
      const auto& reg = registers()[number];
      if (reg.feature == feature) {
        xml += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"/>\n", reg.name, reg.size * 8,
                           reg.type, number);
      }
    }
    xml += "</feature>\n";
  }
  return xml + "</target>\n";
}

std::string registers_for_people(const CpuState& state) {
  std::string text;
  for (std::size_t number = 0; number < kStack; ++number) {
    std::uint64_t value = 0;
    const std::string bytes = read_register(state, number);
    std::memcpy(&value, bytes.data(), bytes.size());
    text += fmt::format("{:<9} {:016x}{}", registers()[number].name, value, number % 3 == 2 ? "\n" : "   ");
  }
  const auto table = [&](const char* name, const kvm_dtable& dtable) {
    text += fmt::format("{:<9} {:016x} limit {:04x}\n", name, dtable.base, dtable.limit);
  };
  table("gdt", state.sregs.gdt);
  table("idt", state.sregs.idt);
  text += fmt::format("{:<9} {:016x} selector {:04x}\n", "tr", state.sregs.tr.base, state.sregs.tr.selector);
  return text;
}

}  // namespace martlet::gdb
