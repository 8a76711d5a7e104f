#include "vmm/kvm/vcpu.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <variant>

#include "vmm/base/error.h"

namespace martlet {

Vcpu::Vcpu(const KvmSystem& system, const Vm& vm, int index)
    : index_{index},
      fd_{kvm_ioctl(vm.fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(index),
                    fmt::format("KVM_CREATE_VCPU {}", index).c_str())} {
  const std::size_t size = system.run_size();
  void* const mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (mapped == MAP_FAILED) {
    fail_errno(errno, "cannot map a vCPU's shared page");
  }
  mapping_ = {static_cast<std::byte*>(mapped), size};
  run_ = static_cast<kvm_run*>(mapped);
}

Vcpu::~Vcpu() { ::munmap(mapping_.data(), mapping_.size()); }

void Vcpu::set_immediate_exit() noexcept {
  // Pairs with the exchange in enter(): whoever takes the 1 away sees all that was asked for before it.
  std::atomic_ref{run_->immediate_exit}.store(1, std::memory_order_release);
}

Exit Vcpu::enter() noexcept {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) {
    return decode(*run_);
  }
  if (errno == EINTR || errno == EAGAIN) {  // EAGAIN: a secondary CPU was woken, but not yet started
    std::atomic_ref{run_->immediate_exit}.exchange(0, std::memory_order_acq_rel);
    return Interrupted{};
  }
  return RunFailed{.error = errno};
}

template <typename Watch>
void Vcpu::loop(Dispatcher& dispatcher, CoalescedWrites& coalesced, StopLine& stop, Watch watch) noexcept {
  while (!stop.requested()) {
    const Exit exit = enter();
    watch.left_guest();
    coalesced.drain();
    const bool served = dispatcher.dispatch(exit);
    watch.served(exit);
    if (!served) {
      attend(exit, stop);
    }
  }
}

void Vcpu::run(Dispatcher& dispatcher, CoalescedWrites& coalesced, StopLine& stop, ExitRecorder* recorder) noexcept {
  struct Nobody {
    void left_guest() noexcept {}
    void served(const Exit&) noexcept {}
  };
  struct Recording {
    ExitRecorder* recorder;
    void left_guest() noexcept { recorder->left_guest(); }
    void served(const Exit& exit) noexcept { recorder->served(exit); }
  };
  if (recorder == nullptr) {
    loop(dispatcher, coalesced, stop, Nobody{});
  } else {
    loop(dispatcher, coalesced, stop, Recording{recorder});
  }
}

/// An exit that is no access. After Interrupted no access is under way any more: KVM_RUN completes one first.
void Vcpu::attend(const Exit& exit, StopLine& stop) noexcept {
  if (std::holds_alternative<Interrupted>(exit) || brake_.pull_at(exit)) {
    brake_.rest(stop);
  } else {
    stop.request(ending_of(exit, index_));
  }
}

}  // namespace martlet
