#pragma once
// qcow2 images made and checked by qemu-img, and a model of the disk that is in one.

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/block_wire.h"
#include "devices/virtio/disk_qcow2.h"
#include "memory_image.h"
#include "tests/support/subprocess.h"

namespace martlet::virtio::qcow2_test {

using Bytes = std::vector<std::byte>;
using Kind = DiskRequest::Kind;

/// Runs it in a shell; its exit code. What it says is shown when that is not `expected`.
inline int shell(const std::string& command, std::initializer_list<int> expected = {0}) {
  auto* const pipe = ::popen((command + " 2>&1").c_str(), "re");
  std::string said;
  for (char part[512]; std::fgets(part, sizeof part, pipe) != nullptr;) {
    said += part;
  }
  const int status = ::pclose(pipe);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (std::ranges::find(expected, code) == expected.end()) {
    fmt::print("{}: exit code {}\n{}", command, code, said);
  }
  return code;
}

inline void store(const std::string& path, const Bytes& bytes) {
  std::ofstream file{path, std::ios::binary};
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}
inline Bytes load(const std::string& path) {
  std::ifstream file{path, std::ios::binary | std::ios::ate};
  Bytes bytes(static_cast<std::size_t>(file.tellg()));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

/// Whatever qemu-img check finds wrong but leaks, which a crash may leave.
enum class Leaks { No, Allowed };
inline void expect_sound(const std::string& path, Leaks leaks = Leaks::No) {
  const auto code =
      leaks == Leaks::No ? shell("qemu-img check -f qcow2 " + path) : shell("qemu-img check -f qcow2 " + path, {0, 3});
  EXPECT_TRUE(code == 0 || (code == 3 && leaks == Leaks::Allowed)) << code;
}

/// A sector's content is its version's number over and over; version 0 is zeroes.
inline Bytes stamps(std::uint64_t version, std::uint64_t sectors) {
  Bytes bytes(sectors * kSector);
  for (std::size_t at = 0; at < bytes.size(); at += sizeof version) {
    std::memcpy(bytes.data() + at, &version, sizeof version);
  }
  return bytes;
}
/// The version that a sector holds; nothing when it is a mixture.
inline std::optional<std::uint64_t> stamp_of(std::span<const std::byte> sector) {
  std::uint64_t version = 0;
  std::memcpy(&version, sector.data(), sizeof version);
  const auto expected = stamps(version, 1);
  return std::ranges::equal(sector, expected) ? std::optional{version} : std::nullopt;
}

/// What each sector of a disk may hold, now and after a crash.
class Model {
 public:
  /// `versions`: of the sectors there are at first; the rest is zeroes.
  Model(std::uint64_t sectors, const std::vector<std::uint64_t>& versions) {
    for (std::uint64_t i = 0; i < sectors; ++i) {
      sectors_.push_back({{.version = i < versions.size() ? versions[i] : 0, .done = true}});
    }
  }

  [[nodiscard]] std::uint64_t size() const { return sectors_.size(); }
  /// A request begins that makes them hold `version`; `hint`: or leaves them as they are.
  void begin(std::uint64_t first, std::uint64_t count, std::uint64_t version, bool hint = false) {
    for (auto i = first; i < first + count; ++i) {
      sectors_[i].push_back({.version = version, .hint = hint});
    }
  }
  void end(std::uint64_t first, std::uint64_t count) {
    for (auto i = first; i < first + count; ++i) {
      sectors_[i].back().done = true;
    }
  }
  /// What a flush that begins now will make last.
  using Marks = std::vector<std::size_t>;
  [[nodiscard]] Marks marks() const {
    Marks marks;
    for (const auto& history : sectors_) {
      marks.push_back(newest(history) + history.front().dropped);
    }
    return marks;
  }
  void flushed(const Marks& marks) {
    for (std::size_t i = 0; i < marks.size(); ++i) {
      auto& history = sectors_[i];
      const auto dropped = history.front().dropped;
      if (marks[i] > dropped) {
        history.erase(history.begin(), history.begin() + static_cast<std::ptrdiff_t>(marks[i] - dropped));
        history.front().dropped = marks[i];
      }
    }
  }
  [[nodiscard]] bool may_hold_now(std::uint64_t sector, std::uint64_t version) const {
    return holds(sectors_[sector], newest(sectors_[sector]), version);
  }
  [[nodiscard]] bool may_hold_after_a_crash(std::uint64_t sector, std::uint64_t version) const {
    return holds(sectors_[sector], 0, version);
  }

 private:
  struct Entry {
    std::uint64_t version = 0;
    bool hint = false;
    bool done = false;
    std::size_t dropped = 0;  // entries before the first one
  };
  using History = std::vector<Entry>;
  [[nodiscard]] static std::size_t newest(const History& history) {
    for (auto i = history.size(); i-- > 1;) {
      if (history[i].done && !history[i].hint) {
        return i;
      }
    }
    return 0;
  }
  [[nodiscard]] static bool holds(const History& history, std::size_t from, std::uint64_t version) {
    return std::any_of(history.begin() + static_cast<std::ptrdiff_t>(from), history.end(),
                       [&](const Entry& entry) { return entry.version == version; });
  }
  std::vector<History> sectors_;
};

/// A driver that has several requests under way at once, of all kinds, none of which overlap.
class Guest {
 public:
  Guest(Disk& disk, Model& model, std::uint32_t seed) : disk_{disk}, model_{model}, random_{seed} {}

  int first_error = 0;  ///< of a request
  int flush_errors = 0;
  std::uint64_t max_sectors = 300;

  void submit_one() {
    auto request = std::make_unique<Request>(*this);
    const auto dice = random_() % 20;
    request->first = random_() % model_.size();
    const auto longest = random_() % 4 == 0 ? max_sectors : 16;
    request->count = std::min(1 + random_() % longest, model_.size() - request->first);
    if (random_() % 3 == 0) {  // likely whole clusters
      request->first = request->first / 128 * 128;
      request->count = std::min<std::uint64_t>(random_() % 2 == 0 ? 128 : 256, model_.size() - request->first);
    }
    auto& work = request->work;
    work.kind = dice < 8    ? Kind::Write
                : dice < 13 ? Kind::Read
                : dice < 14 ? Kind::Discard
                : dice < 16 ? Kind::Zero
                : dice < 18 ? Kind::ZeroUnmap
                            : Kind::Flush;
    if (work.kind == Kind::Flush) {
      request->marks = model_.marks();
    } else if (overlaps(*request)) {
      return;
    } else {
      work.offset = request->first * kSector;
      work.length = request->count * kSector;
    }
    if (work.kind == Kind::Write) {
      ++version_;
      request->bytes = stamps(version_, request->count);
      model_.begin(request->first, request->count, version_);
    } else if (work.kind == Kind::Read) {
      request->bytes.resize(work.length);
    } else if (work.kind != Kind::Flush) {
      model_.begin(request->first, request->count, 0, work.kind == Kind::Discard);
    }
    if (!request->bytes.empty()) {  // in two parts
      const auto part = random_() % request->bytes.size();
      request->buffers = {{.iov_base = request->bytes.data(), .iov_len = part},
                          {.iov_base = request->bytes.data() + part, .iov_len = request->bytes.size() - part}};
      work.buffers = request->buffers;
    }
    auto& reference = *request;
    requests_.push_back(std::move(request));
    disk_.submit(reference);
    disk_.commit();
  }
  [[nodiscard]] std::size_t under_way() {
    std::erase_if(requests_, [](const auto& request) { return request->over; });
    return requests_.size();
  }
  void play(unsigned requests, std::size_t depth) {
    for (unsigned i = 0; i < requests; ++i) {
      submit_one();
      while (under_way() > depth || (random_() % 3 == 0 && under_way() != 0)) {
        disk_.wait();
      }
    }
  }
  void finish() {
    while (under_way() != 0) {
      disk_.wait();
    }
  }

 private:
  struct Request final : DiskRequest {
    explicit Request(Guest& owner) : guest{owner} {}
    void done(int error) noexcept override { guest.ended(*this, error); }
    Guest& guest;
    std::uint64_t first = 0, count = 0;  // sectors
    Bytes bytes;
    std::vector<iovec> buffers;
    Model::Marks marks;
    bool over = false;
  };

  [[nodiscard]] bool overlaps(const Request& one) const {
    return std::ranges::any_of(requests_, [&](const auto& other) {
      return !other->over && other->work.kind != Kind::Flush && one.first < other->first + other->count &&
             other->first < one.first + one.count;
    });
  }

  void ended(Request& request, int error) {
    EXPECT_FALSE(request.over);
    request.over = true;
    const auto kind = request.work.kind;
    if (error != 0) {
      first_error = first_error == 0 ? error : first_error;
      flush_errors += kind == Kind::Flush ? 1 : 0;
      return;  // what it was to write may or may not be there
    }
    if (kind == Kind::Flush) {
      model_.flushed(request.marks);
    } else if (kind == Kind::Read) {
      for (std::uint64_t i = 0; i < request.count && !::testing::Test::HasFailure(); ++i) {
        const auto version = stamp_of(std::span{request.bytes}.subspan(i * kSector, kSector));
        EXPECT_TRUE(version && model_.may_hold_now(request.first + i, *version)) << "sector " << request.first + i;
      }
    } else {
      model_.end(request.first, request.count);
    }
  }

  Disk& disk_;
  Model& model_;
  std::mt19937 random_;
  std::uint64_t version_ = 1000;
  std::vector<std::unique_ptr<Request>> requests_;
};

/// An image as qemu-img makes it, and what is known of it.
struct Made {
  enum class Start { Empty, RawBacking, Qcow2Backing, Zlib, Zstd, Snapshot, Preallocated };
  struct How {
    Start start = Start::Empty;
    unsigned cluster = 65536;
    const char* options = "compat=1.1";
  };
  static constexpr std::uint64_t kSectors = 12 * 2048 + 3;
  static constexpr std::uint64_t kBaseSectors = 7 * 2048 + 5;

  explicit Made(const How& with) : how{with} {
    for (std::uint64_t i = 0; i < kBaseSectors; ++i) {
      versions.push_back(i % 4096 < 1000 ? 0 : 1 + i % 900);
      const auto sector = stamps(versions.back(), 1);
      base.insert(base.end(), sector.begin(), sector.end());
    }
    store(folder.file("base.raw"), base);
    const auto options = fmt::format("-o {},cluster_size={}", how.options, how.cluster);
    const auto create = [&](const std::string& more) {
      EXPECT_EQ(shell(fmt::format("qemu-img create -f qcow2 {} {} {} {}", options, more, path(), kSectors * kSector)),
                0);
    };
    const auto convert = [&](const std::string& more, const std::string& to) {
      EXPECT_EQ(shell(fmt::format("qemu-img convert {} {} -O qcow2 {} {}", options, more, folder.file("base.raw"), to)),
                0);
    };
    const auto resize = [&] { EXPECT_EQ(shell(fmt::format("qemu-img resize {} {}", path(), kSectors * kSector)), 0); };
    switch (how.start) {
      case Start::Empty:
        versions.clear();
        create("");
        break;
      case Start::Preallocated:
        versions.clear();
        create("-o preallocation=metadata");
        break;
      case Start::RawBacking:
        create(fmt::format("-F raw -b {}", folder.file("base.raw")));
        break;
      case Start::Qcow2Backing:
        convert("-c", folder.file("base.qcow2"));
        create(fmt::format("-F qcow2 -b {}", folder.file("base.qcow2")));
        break;
      case Start::Zlib:
        convert("-c", path());
        resize();
        break;
      case Start::Zstd:
        convert("-c -o compression_type=zstd", path());
        resize();
        break;
      case Start::Snapshot:
        convert("", path());
        resize();
        EXPECT_EQ(shell("qemu-img snapshot -c before " + path()), 0);
        break;
    }
  }

  [[nodiscard]] std::string path() const { return folder.file("image.qcow2"); }
  [[nodiscard]] Model model() const { return {kSectors, versions}; }
  /// The disk in `content`, all of it in memory; `image` becomes where.
  std::unique_ptr<Qcow2Disk> open(const Bytes& content, MemoryImage*& image, std::uint32_t seed) const {
    auto file = std::make_unique<MemoryImage>(content, seed);
    image = file.get();
    auto top = std::make_unique<Qcow2Image>(std::move(file), DiskAccess::ReadWrite);
    std::unique_ptr<Qcow2Image> below;
    std::unique_ptr<ImageFile> raw_below;
    if (how.start == Start::Qcow2Backing) {
      below = std::make_unique<Qcow2Image>(std::make_unique<MemoryImage>(load(folder.file("base.qcow2")), seed),
                                           DiskAccess::ReadOnly);
    } else if (how.start == Start::RawBacking) {
      raw_below = std::make_unique<MemoryImage>(base, seed);
    }
    auto disk = std::make_unique<Qcow2Disk>(
        std::make_unique<Qcow2Stack>(std::move(top), std::move(below), std::move(raw_below)), DiskAccess::ReadWrite,
        DiskCache::Writeback);
    disk->begin();
    return disk;
  }
  /// What QEMU reads from `image`, or from its snapshot.
  [[nodiscard]] Bytes read_back(const Bytes& image, Leaks leaks, const std::string& snapshot = "") const {
    const auto copy = folder.file("copy.qcow2");
    store(copy, image);
    if (snapshot.empty()) {
      expect_sound(copy, leaks);
    }
    EXPECT_EQ(shell(fmt::format("qemu-img convert {} -f qcow2 -O raw {} {}", snapshot, copy, folder.file("copy.raw"))),
              0);
    return load(folder.file("copy.raw"));
  }

  How how;
  const test::TempDir folder;
  Bytes base;
  std::vector<std::uint64_t> versions;
};

inline void PrintTo(const Made::How& how, std::ostream* out) {
  *out << "start " << static_cast<int>(how.start) << ", clusters of " << how.cluster << ", " << how.options;
}

}  // namespace martlet::virtio::qcow2_test
