#include <gmock/gmock.h>

#include <functional>
#include <initializer_list>

#include "block_support.h"
#include "devices/virtio/qcow2_header.h"
#include "qcow2_support.h"

namespace martlet::virtio {
namespace {

using namespace qcow2_test;
using testing::AllOf;
using testing::HasSubstr;

/// 4 KiB clusters; 2 MiB, the first 64 KiB of which hold data.
constexpr std::uint64_t kCluster = 4096;
constexpr std::uint64_t kDiskSize = 2U << 20U;

class Qcow2Hostile : public testing::Test {
 protected:
  Qcow2Hostile() {
    store(folder.file("data.raw"), stamps(7, 128));
    const auto path = folder.file("image.qcow2");
    EXPECT_EQ(shell(fmt::format("qemu-img convert -O qcow2 -o cluster_size={},compat=1.1 {} {}", kCluster,
                                folder.file("data.raw"), path)),
              0);
    EXPECT_EQ(shell(fmt::format("qemu-img resize {} {}", path, kDiskSize)), 0);
    good = load(path);
    good.resize((good.size() + kCluster - 1) / kCluster * kCluster);
    image = good;
  }

  template <class T>
  void put(std::uint64_t at, T value) {
    store_big(std::span{image}, at, value);
  }
  [[nodiscard]] std::uint64_t get(std::uint64_t at) const { return load_big<std::uint64_t>(image, at); }
  [[nodiscard]] std::uint64_t l1() const { return get(40); }
  [[nodiscard]] std::uint64_t l2() const { return get(l1()) & kEntryOffset; }
  [[nodiscard]] std::uint64_t refcount_block() const { return get(get(48)); }

  std::string refusal(DiskAccess access = DiskAccess::ReadWrite) {
    const auto message = host_error([&] { Qcow2Image{std::make_unique<MemoryImage>(image, 0), access}; });
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  void open() {
    auto owned = std::make_unique<MemoryImage>(image, 0);
    file = owned.get();
    auto top = std::make_unique<Qcow2Image>(std::move(owned), DiskAccess::ReadWrite);
    disk = std::make_unique<Qcow2Disk>(std::make_unique<Qcow2Stack>(std::move(top), nullptr, nullptr),
                                       DiskAccess::ReadWrite, DiskCache::Writeback);
    disk->begin();
  }
  int carry_out(Kind kind, std::uint64_t offset, std::uint64_t length) {
    class Now final : public DiskRequest {
     public:
      void done(int error) noexcept override { result = error; }
      std::optional<int> result;
    } request;
    data.resize(length);
    const iovec buffer{.iov_base = data.data(), .iov_len = data.size()};
    request.work = {.kind = kind, .offset = offset, .length = length};
    if (kind == Kind::Read || kind == Kind::Write) {
      request.work.buffers = {&buffer, 1};
    }
    disk->submit(request);
    while (!request.result) {
      disk->wait();
    }
    return *request.result;
  }
  /// The first cluster of the disk is an I/O error; the second one is as it was.
  void expect_error_there_only() {
    open();
    EXPECT_EQ(carry_out(Kind::Read, 0, 512), EIO);
    EXPECT_EQ(carry_out(Kind::Write, 0, 512), EIO);
    EXPECT_EQ(carry_out(Kind::Write, 0, kCluster), EIO);
    EXPECT_EQ(carry_out(Kind::Discard, 0, kCluster), EIO);
    EXPECT_EQ(carry_out(Kind::Zero, 512, 512), EIO);
    EXPECT_EQ(carry_out(Kind::Read, kCluster, 512), 0);
    EXPECT_EQ(stamp_of(data), 7U);
    EXPECT_EQ(carry_out(Kind::Write, kCluster, 512), 0);
    EXPECT_EQ(carry_out(Kind::Flush, 0, 0), 0);
  }

  const test::TempDir folder;
  Bytes good;
  Bytes image;
  Bytes data;
  std::unique_ptr<Qcow2Disk> disk;
  MemoryImage* file = nullptr;
};

TEST_F(Qcow2Hostile, HeadersThatCannotBeAreRefusedInOneLine) {
  const auto expect = [&](const std::function<void()>& change, const std::vector<std::string>& words) {
    image = good;
    change();
    const auto message = refusal();
    for (const auto& word : words) {
      EXPECT_THAT(message, HasSubstr(word));
    }
  };
  expect([&] { image.clear(); }, {"0 bytes", "qemu-img create"});
  expect([&] { image.resize(71); }, {"71 bytes"});
  expect([&] { image.resize(100); }, {"header_length"});
  expect([&] { put<std::uint32_t>(0, 0x12345678); }, {"magic 0x12345678", "0x514649fb", "format=raw"});
  expect([&] { put<std::uint32_t>(4, 4); }, {"version 4", "2 and 3"});
  expect([&] { put<std::uint32_t>(20, 8); }, {"cluster_bits 8", "9 to 21"});
  expect([&] { put<std::uint32_t>(20, 22); }, {"cluster_bits 22", "9 to 21"});
  expect([&] { put<std::uint64_t>(24, 0); }, {"virtual size 0"});
  expect([&] { put<std::uint64_t>(24, 1000); }, {"virtual size 1000"});
  expect([&] { put<std::uint64_t>(24, ~0ULL << 9U); }, {"l1_size 1", "at most 4194304"});
  expect([&] { put<std::uint32_t>(32, 2); }, {"encrypted", "crypt_method 2"});
  expect([&] { put<std::uint32_t>(36, 0); }, {"l1_size 0", "expected 1"});
  expect([&] { put<std::uint32_t>(36, ~0U); }, {"l1_size 4294967295"});
  expect([&] { put<std::uint64_t>(40, 0); }, {"l1_table_offset 0x0"});
  expect([&] { put<std::uint64_t>(40, l1() + 512); }, {"l1_table_offset", "multiple of 4096"});
  expect([&] { put<std::uint64_t>(40, 1ULL << 40U); }, {"l1_table_offset 0x10000000000"});
  expect([&] { put<std::uint64_t>(40, get(48)); }, {"overlap"});
  expect([&] { put<std::uint64_t>(48, ~0ULL << 12U); }, {"refcount_table_offset"});
  expect([&] { put<std::uint32_t>(56, 0); }, {"refcount_table_clusters 0", "1 to 2048"});
  expect([&] { put<std::uint32_t>(56, 2049); }, {"refcount_table_clusters 2049"});
  expect([&] { put<std::uint32_t>(60, 65537); }, {"nb_snapshots 65537"});
  expect([&] { put<std::uint32_t>(60, 1); }, {"snapshots_offset 0x0"});
  expect(
      [&] {
        put<std::uint32_t>(60, 60000);
        put<std::uint64_t>(64, l1());
      },
      {"snapshot table", "qemu-img check"});
  expect([&] { put<std::uint64_t>(72, 1); }, {"dirty", "qemu-img check -r all"});
  expect([&] { put<std::uint64_t>(72, 2); }, {"corrupt", "qemu-img check -r all"});
  expect([&] { put<std::uint64_t>(72, 4); }, {"data in another file"});
  expect([&] { put<std::uint64_t>(72, 8); }, {"compression_type 0"});
  expect([&] { put<std::uint64_t>(72, 16); }, {"extended L2"});
  expect([&] { put<std::uint64_t>(72, 1ULL << 63U); }, {"incompatible_features 0x8000000000000000"});
  expect([&] { put<std::uint32_t>(96, 7); }, {"refcount_order 7"});
  expect([&] { put<std::uint32_t>(100, 72); }, {"header_length 72"});
  expect([&] { put<std::uint32_t>(100, 1U << 30U); }, {"header_length"});
  expect([&] { put<std::uint8_t>(104, 2); }, {"compression_type 2"});
  expect(
      [&] {
        put<std::uint64_t>(8, 4090);
        put<std::uint32_t>(16, 100);
      },
      {"backing_file_offset 0xffa", "backing_file_size 100"});
  expect([&] { put<std::uint64_t>(get(48), refcount_block() + 512); }, {"entry 0 of its refcount table"});
  expect([&] { put<std::uint64_t>(get(48) + 8, refcount_block()); }, {"entry 1 of its refcount table"});
  expect([&] { put<std::uint64_t>(get(48), l1()); }, {"entry 0 of its refcount table"});
  image = good;
  put<std::uint64_t>(72, 1);  // who only reads needs no refcounts
  Qcow2Image{std::make_unique<MemoryImage>(image, 0), DiskAccess::ReadOnly};
}

TEST_F(Qcow2Hostile, AnEntryThatCannotBeIsAnIoErrorOfThoseWhoNeedIt) {
  const auto data_cluster = get(l2()) & kEntryOffset;
  for (const auto entry : std::initializer_list<std::uint64_t>{
           kEntryCopied | 0ULL,                         // the header
           kEntryCopied | l1(),                         // tables
           kEntryCopied | l2(),                         //
           kEntryCopied | get(48),                      //
           kEntryCopied | refcount_block(),             //
           kEntryCopied | (data_cluster + 512),         // not aligned
           kEntryCopied | (1ULL << 50U),                // beyond the file
           data_cluster | 2U,                           // reserved bits
           data_cluster | 1ULL << 61U,                  //
           kEntryCompressed | 1ULL << 40U,              // compressed, beyond the file
           kEntryCompressed | (l2() + 100),             // in a table
           kEntryCompressed | std::uint64_t{kCluster},  //
       }) {
    image = good;
    put<std::uint64_t>(l2(), entry);
    SCOPED_TRACE(entry);
    expect_error_there_only();
  }
}

TEST_F(Qcow2Hostile, NoiseIsNoCompressedCluster) {
  put<std::uint64_t>(l2(), kEntryCompressed | (get(l2()) & kEntryOffset) | 3ULL << 58U);
  open();
  EXPECT_EQ(carry_out(Kind::Read, 0, 512), EIO);
  EXPECT_EQ(carry_out(Kind::Write, 0, 512), EIO);
  EXPECT_EQ(carry_out(Kind::Write, 0, kCluster), 0);  // needs nothing of it
  EXPECT_EQ(carry_out(Kind::Read, 0, kCluster), 0);
}

TEST_F(Qcow2Hostile, AnL1EntryThatCannotBeIsToo) {
  for (const auto entry : std::initializer_list<std::uint64_t>{
           kEntryCopied | 512ULL, kEntryCopied | std::uint64_t{kCluster * 100'000}, kEntryCopied | l1(),
           kEntryCopied | get(48), kEntryCopied | refcount_block(), l2() | 1, l2() | 1ULL << 56U}) {
    image = good;
    put<std::uint64_t>(l1(), entry);
    open();
    SCOPED_TRACE(entry);
    for (const auto kind : {Kind::Read, Kind::Write, Kind::Discard, Kind::ZeroUnmap}) {
      EXPECT_EQ(carry_out(kind, 0, kCluster), EIO);
    }
    EXPECT_EQ(carry_out(Kind::Flush, 0, 0), 0);
  }
}

TEST_F(Qcow2Hostile, RefcountsThatCallTablesFreeDoNotGetThemOverwritten) {
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(refcount_block()), kCluster, std::byte{0});
  open();
  for (std::uint64_t at = 64 << 10U; at < kDiskSize; at += kCluster) {
    EXPECT_EQ(carry_out(Kind::Write, at, kCluster), 0);
  }
  EXPECT_EQ(carry_out(Kind::Flush, 0, 0), 0);
  const auto same = [&](std::uint64_t at, std::uint64_t count) {
    return std::equal(image.begin() + static_cast<std::ptrdiff_t>(at),
                      image.begin() + static_cast<std::ptrdiff_t>(at + count),
                      file->bytes.begin() + static_cast<std::ptrdiff_t>(at));
  };
  EXPECT_TRUE(same(0, kCluster));
  EXPECT_TRUE(same(get(48), kCluster));
  EXPECT_TRUE(same(l1(), 8));
}

TEST_F(Qcow2Hostile, RefcountsThatCallAllUsedEndInTheFilesEnd) {
  std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(refcount_block()), kCluster, std::byte{0xff});
  open();
  EXPECT_EQ(carry_out(Kind::Write, 64 << 10U, kCluster), 0);
  file->max_size = file->size();
  int error = 0;
  for (std::uint64_t at = 68 << 10U; at < kDiskSize && error == 0; at += kCluster) {
    error = carry_out(Kind::Write, at, kCluster);
  }
  EXPECT_EQ(error, ENOSPC);
  EXPECT_EQ(carry_out(Kind::Write, 64 << 10U, kCluster), 0);
}

TEST_F(Qcow2Hostile, AutoclearFeaturesAreCleared) {
  put<std::uint64_t>(88, 5);
  open();
  EXPECT_EQ(load_big<std::uint64_t>(file->bytes, 88), 0U);
  EXPECT_EQ(load_big<std::uint64_t>(file->cut(), 88), 0U);
}

}  // namespace
}  // namespace martlet::virtio
