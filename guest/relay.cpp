#include "guest/relay.h"

#include <asm/poll.h>

#include "guest/system.h"

namespace guest {
namespace {

/// Errors that pass: a signal, no room, no memory for a buffer of the driver's.
bool passes(long result) noexcept { return result == -EINTR || result == -EAGAIN || result == -ENOMEM; }

}  // namespace

void Relay::prepare(PollEntry& from, PollEntry& to) const noexcept {
  from = {empty() ? from_ : -1, POLLIN, 0};
  to = {to_, static_cast<short>(empty() ? 0 : POLLOUT), 0};  // that nobody reads any more is told unasked
}

void Relay::step(const PollEntry& from, const PollEntry& to) noexcept {
  if ((to.happened & (POLLHUP | POLLERR)) != 0) {
    return end();
  }
  if (from.happened != 0) {
    const auto got = read(from_, buffer_, sizeof buffer_);
    if (got > 0) {
      begin_ = 0;
      end_ = static_cast<std::size_t>(got);
    } else if (!passes(got)) {
      return end();
    }
  }
  while (!empty()) {
    const auto put = write(to_, buffer_ + begin_, end_ - begin_);
    if (put < 0) {
      return passes(put) ? static_cast<void>(0) : end();
    }
    begin_ += static_cast<std::size_t>(put);
  }
}

void Relay::end() noexcept {
  if (!ended()) {
    close(from_);
    close(to_);
    from_ = to_ = -1;
    begin_ = end_ = 0;
  }
}

}  // namespace guest
