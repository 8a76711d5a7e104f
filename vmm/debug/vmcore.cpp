#include "vmm/debug/vmcore.h"

#include <elf.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "vmm/base/touched_pages.h"
#include "vmm/debug/page_walk.h"
#include "vmm/debug/vmcore_notes.h"
#include "vmm/debug/vmcore_sink.h"

namespace martlet {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kKernelAlignment = 2U << 20U;
constexpr std::uint64_t kGiB = 1U << 30U;
constexpr std::size_t kChunk = 1U << 20U;
alignas(kPage) constexpr std::array<std::byte, kPage> kZeroPage{};

/// A PT_LOAD.
struct Segment {
  std::uint64_t virtual_addr = 0;
  GuestRange range;
  std::uint64_t file_offset = 0;
};

/// Where the kernel has all of RAM mapped: mem_section points to memory that it took from there.
std::optional<std::uint64_t> direct_map(const GuestMemory& memory, const VmCoreInfo& info) {
  const auto paging = info.kernel_paging();
  const auto inside = info.symbol("mem_section");
  const auto page = paging && inside ? walk(memory, *paging, *inside) : std::nullopt;
  const std::uint64_t base = page ? *inside - raw(page->addr) : 0;
  return page && base % kGiB == 0 ? std::optional{base} : std::nullopt;
}

/// The kernel's image from its text up to its page tables, once more and by its own addresses: that is where drgn
/// begins to translate.
std::optional<Segment> kernel_image(const VmCoreInfo& info, const Segment& ram) {
  const auto paging = info.kernel_paging();
  const auto text = info.symbol("_stext");
  const auto tables = info.symbol("swapper_pg_dir");
  if (!paging || !text || !tables || *tables < *text) {
    return std::nullopt;
  }
  const std::uint64_t begin = *text & ~(kKernelAlignment - 1);
  const std::uint64_t size = *tables + kPage - begin;
  const GuestRange range{GuestAddr{paging->cr3 + kPage - size}, size};
  if (begin % kPage != 0 || size % kPage != 0 || size > kGiB || !ram.range.contains(range)) {
    return std::nullopt;
  }
  return Segment{
      .virtual_addr = begin, .range = range, .file_offset = ram.file_offset + raw(range.start) - raw(ram.range.start)};
}

class Layout {
 public:
  explicit Layout(const Vmcore& core)
      : notes_{vmcore_notes(core.cpus, core.info != nullptr ? core.info->text() : std::string_view{})} {
    const auto regions = core.memory.regions();
    // Without paging to go by, as QEMU has it.
    const std::uint64_t base = core.info != nullptr ? direct_map(core.memory, *core.info).value_or(0) : 0;
    const std::size_t most_headers = regions.size() + 2;
    size_ = sizeof(Elf64_Ehdr) + most_headers * sizeof(Elf64_Phdr) + notes_.size();
    size_ = (size_ + kPage - 1) / kPage * kPage;  // so that the file's holes are as the memory's
    for (const auto& region : regions) {
      ram_.push_back({.virtual_addr = base + raw(region.range.start), .range = region.range, .file_offset = size_});
      size_ += region.range.size;
    }
    for (const auto& ram : ram_) {
      if (core.info != nullptr && !kernel_) {
        kernel_ = kernel_image(*core.info, ram);
      }
    }
  }

  [[nodiscard]] std::uint64_t file_size() const noexcept { return size_; }
  [[nodiscard]] std::span<const Segment> ram() const noexcept { return ram_; }

  /// Everything before the memory.
  [[nodiscard]] std::vector<std::byte> headers() const {
    const std::size_t count = 1 + (kernel_ ? 1 : 0) + ram_.size();
    Elf64_Ehdr elf{};
    std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e_ident[EI_DATA] = ELFDATA2LSB;
    elf.e_ident[EI_VERSION] = EV_CURRENT;
    elf.e_type = ET_CORE;
    elf.e_machine = EM_X86_64;
    elf.e_version = EV_CURRENT;
    elf.e_phoff = sizeof elf;
    elf.e_ehsize = sizeof elf;
    elf.e_phentsize = sizeof(Elf64_Phdr);
    elf.e_phnum = static_cast<Elf64_Half>(count);
    Elf64_Phdr note{};
    note.p_type = PT_NOTE;
    note.p_offset = sizeof elf + count * sizeof note;
    note.p_filesz = notes_.size();
    note.p_memsz = notes_.size();
    std::vector<std::byte> bytes;
    append(bytes, std::as_bytes(std::span{&elf, 1}));
    append(bytes, std::as_bytes(std::span{&note, 1}));
    if (kernel_) {
      append_load(bytes, *kernel_);
    }
    for (const auto& segment : ram_) {
      append_load(bytes, segment);
    }
    append(bytes, notes_);
    return bytes;
  }

 private:
  static void append(std::vector<std::byte>& bytes, std::span<const std::byte> more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  static void append_load(std::vector<std::byte>& bytes, const Segment& segment) {
    Elf64_Phdr load{};
    load.p_type = PT_LOAD;
    load.p_flags = PF_R | PF_W | PF_X;
    load.p_offset = segment.file_offset;
    load.p_vaddr = segment.virtual_addr;
    load.p_paddr = raw(segment.range.start);
    load.p_filesz = segment.range.size;
    load.p_memsz = segment.range.size;
    append(bytes, std::as_bytes(std::span{&load, 1}));
  }

  std::vector<std::byte> notes_;
  std::vector<Segment> ram_;
  std::optional<Segment> kernel_;
  std::uint64_t size_ = 0;
};

/// Puts what is not zero of `bytes`, whole pages, at `offset`.
void put_pages(Sink& sink, std::uint64_t offset, std::span<const std::byte> bytes) {
  const auto is_zero = [&](std::size_t at) { return std::memcmp(bytes.data() + at, kZeroPage.data(), kPage) == 0; };
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t end = at;
    while (end < bytes.size() && end - at < kChunk && !is_zero(end)) {
      end += kPage;
    }
    if (end == at) {
      at += kPage;
      continue;
    }
    sink.put(offset + at, bytes.subspan(at, end - at));
    at = end;
  }
}

void put_memory(Sink& sink, const GuestMemory& memory, std::span<const Segment> ram) {
  visit_touched(memory, [&](const GuestRange& run) {
    for (const auto& segment : ram) {
      if (const auto bytes = memory.slice(run.start, run.size); bytes && segment.range.contains(run)) {
        put_pages(sink, segment.file_offset + raw(run.start) - raw(segment.range.start), *bytes);
      }
    }
    return true;
  });
}

}  // namespace

void write_vmcore(const Vmcore& core) {
  const Layout layout{core};
  NewFile file{core.path};
  const auto sink =
      core.compression == Vmcore::Compression::Zstd ? make_zstd_sink(file, layout.file_size()) : make_sparse_sink(file);
  sink->put(0, layout.headers());
  put_memory(*sink, core.memory, layout.ram());
  sink->finish(layout.file_size());
  file.finish();
}

}  // namespace martlet
