#include "devices/virtio/qcow2_inflate.h"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace martlet::virtio {
namespace {

// Raw deflate. Writers use a window of 2^12 bytes; a larger one reads that, too.
constexpr int kRawDeflate = -MAX_WBITS;
// A cluster has 2^21 bytes at most. The bound is on the memory that a frame may ask for.
constexpr int kMaxZstdWindow = 23;

bool inflate_zlib(std::span<const std::byte> from, std::span<std::byte> into) noexcept {
  z_stream stream{};
  if (::inflateInit2(&stream, kRawDeflate) != Z_OK) {
    return false;
  }
  // zlib's word for input is not const, but it reads only.
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = reinterpret_cast<Bytef*>(into.data());
  stream.avail_out = static_cast<uInt>(into.size());
  const int result = ::inflate(&stream, Z_FINISH);
  ::inflateEnd(&stream);
  return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
}

bool inflate_zstd(std::span<const std::byte> from, std::span<std::byte> into) noexcept {
  const std::unique_ptr<ZSTD_DCtx, decltype(&::ZSTD_freeDCtx)> context{::ZSTD_createDCtx(), &::ZSTD_freeDCtx};
  if (!context || ::ZSTD_isError(::ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxZstdWindow)) != 0) {
    return false;
  }
  ZSTD_inBuffer input{.src = from.data(), .size = from.size(), .pos = 0};
  ZSTD_outBuffer output{.dst = into.data(), .size = into.size(), .pos = 0};
  while (output.pos < output.size) {
    const auto before = input.pos + output.pos;
    const auto result = ::ZSTD_decompressStream(context.get(), &output, &input);
    if (::ZSTD_isError(result) != 0 || input.pos + output.pos == before) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool inflate_cluster(Qcow2Header::Compression how, std::span<const std::byte> from,
                     std::span<std::byte> into) noexcept {
  return how == Qcow2Header::Compression::Zstd ? inflate_zstd(from, into) : inflate_zlib(from, into);
}

}  // namespace martlet::virtio
