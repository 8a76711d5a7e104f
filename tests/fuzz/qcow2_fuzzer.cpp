// An image that says whatever the input does, and a guest that writes to it. Nothing here may crash, hang or take
// memory without end; that a file is still what it was is for the unit tests to see.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "../unit/memory_image.h"
#include "devices/virtio/disk_qcow2.h"
#include "vmm/base/error.h"

namespace {

using namespace martlet;
using namespace martlet::virtio;

class Request final : public DiskRequest {
 public:
  void done(int /*error*/) noexcept override { over = true; }
  bool over = true;
};

void play(Disk& disk, std::uint32_t seed) {
  std::minstd_rand random{seed + 1};
  std::vector<std::byte> memory(1U << 16U);
  const iovec buffer{.iov_base = memory.data(), .iov_len = memory.size()};
  std::array<Request, 4> requests;
  const auto sectors = disk.shape().size / 512;
  for (unsigned i = 0; i < 64; ++i) {
    auto& request = requests[i % requests.size()];
    for (int turn = 0; !request.over; ++turn) {
      if (turn == 100'000) {
        std::abort();  // never answered
      }
      disk.wait();
    }
    const auto first = i % 2 == 0 ? random() % std::min<std::uint64_t>(sectors, 256) : random() % sectors;
    request.work = {.kind = static_cast<DiskRequest::Kind>(random() % 6), .offset = first * 512};
    request.work.length = std::min<std::uint64_t>((1 + random() % 16) * 512, (sectors - first) * 512);
    const iovec part{.iov_base = buffer.iov_base, .iov_len = request.work.length};
    static std::array<iovec, 4> parts;
    parts[i % 4] = part;
    request.work.buffers = {&parts[i % 4], 1};
    request.over = false;
    disk.submit(request);
  }
  for (auto& request : requests) {
    while (!request.over) {
      disk.wait();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) {
    return 0;
  }
  const auto bytes = std::as_bytes(std::span{data, size});
  const auto access = (data[0] & 1U) != 0 ? DiskAccess::ReadWrite : DiskAccess::ReadOnly;
  try {
    auto file = std::make_unique<MemoryImage>(std::vector<std::byte>{bytes.begin() + 2, bytes.end()}, data[1]);
    file->max_size = 16U << 20U;
    auto image = std::make_unique<Qcow2Image>(std::move(file), access);
    Qcow2Disk disk{std::make_unique<Qcow2Stack>(std::move(image), nullptr, nullptr), access, DiskCache::Writeback};
    disk.begin();
    play(disk, data[1]);
  } catch (const HostError&) {  // refused
  }
  return 0;
}
