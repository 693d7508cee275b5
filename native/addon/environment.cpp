#include "addon/environment.h"

#include <algorithm>
#include <utility>

namespace monosem {

Environment::Environment(Napi::Env env) : env_(env) {
  bell_ = Bell::New(env, "monosem", 0, 1, this);
  bell_.Unref(env);
  mailbox_->bell = bell_;
  // After the thread-safe function was made: hooks run in reverse order, so ours runs before it is torn down.
  env.AddCleanupHook([](Environment* environment) { environment->end(); }, this);
}

Napi::Error Environment::error(const Failure& failure) const {
  const auto code = Napi::String::New(env_, errorCodeName(failure.code));
  const auto message = Napi::String::New(env_, failure.message);
  if (!errorClass_.IsEmpty()) return Napi::Error(env_, errorClass_.New({code, message}));
  Napi::Error error = Napi::Error::New(env_, failure.message);
  error.Set("code", code);
  return error;
}

void Environment::add(const std::shared_ptr<Device>& device) {
  devices_.erase(std::remove_if(devices_.begin(), devices_.end(), [](const auto& d) { return d.expired(); }),
                 devices_.end());
  devices_.push_back(device);
}

Environment::Read Environment::beginRead(const std::shared_ptr<Device>& device, const Napi::Object& kept,
                                         Finish finish) {
  const uint64_t number = nextRead_++;
  auto deferred = Napi::Promise::Deferred::New(env_);
  const Napi::Promise promise = deferred.Promise();
  if (pending_.empty()) bell_.Ref(env_);
  pending_.emplace(number, Pending{deferred, Napi::Persistent(kept), std::move(finish), device});
  return {number, promise, completion(number)};
}

Device::Completion Environment::continueRead(uint64_t number, const Napi::Object& kept, Finish finish) {
  Pending& pending = pending_.at(number);
  pending.kept = Napi::Persistent(kept);
  pending.finish = std::move(finish);
  return completion(number);
}

Device::Completion Environment::completion(uint64_t number) const {
  return [mailbox = mailbox_, number](const Failure* failure) { mailbox->post(number, failure); };
}

void Environment::Mailbox::post(uint64_t read, const Failure* failure) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!bell) return;
  outcomes.push_back({read, failure ? std::optional<Failure>(*failure) : std::nullopt});
  if (outcomes.size() == 1) bell->NonBlockingCall();  // else it has been rung for the first one
}

void Environment::deliver(Napi::Env env, Napi::Function, Environment* environment, void*) {
  if (env == nullptr) return;  // the environment is ending
  std::vector<Mailbox::Outcome> outcomes;
  {
    std::lock_guard<std::mutex> lock(environment->mailbox_->mutex);
    outcomes.swap(environment->mailbox_->outcomes);
  }
  Napi::HandleScope scope(env);
  for (const Mailbox::Outcome& outcome : outcomes) environment->settle(env, outcome);
}

void Environment::settle(Napi::Env env, const Mailbox::Outcome& outcome) {
  const auto found = pending_.find(outcome.read);
  if (found == pending_.end()) return;
  Napi::Promise::Deferred deferred = found->second.deferred;
  try {
    if (outcome.failure) {
      deferred.Reject(error(*outcome.failure).Value());
    } else {
      // Moved out: it may replace itself.
      const Finish finish = std::move(found->second.finish);
      const std::optional<Napi::Value> value = finish(env, outcome.read, found->second.kept.Value());
      if (!value) return;
      deferred.Resolve(*value);
    }
  } catch (const Napi::Error& failed) {
    deferred.Reject(failed.Value());
  } catch (const EngineError& failed) {
    deferred.Reject(error({failed.code(), failed.what()}).Value());
  } catch (const std::exception& failed) {
    deferred.Reject(error({ErrorCode::internal, failed.what()}).Value());
  }
  pending_.erase(found);
  if (pending_.empty()) bell_.Unref(env);
}

void Environment::end() {
  for (const auto& weak : devices_) {
    if (const auto device = weak.lock()) device->shutDown();
  }
  {
    std::lock_guard<std::mutex> lock(mailbox_->mutex);
    mailbox_->bell.reset();
  }
  pending_.clear();
  errorClass_.Reset();
  bell_.Release();
}

}  // namespace monosem
