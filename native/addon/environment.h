// What the addon keeps for one JavaScript environment (the main thread, or a worker).
//
// Reads are answered here. A read's promise and its result array are N-API references and live in `pending_`, on the
// JavaScript thread; queued work knows a number only. When the work is done the queue's thread puts the number and the
// outcome into the mailbox and rings a thread-safe function, whose callback settles the promises. The thread-safe
// function keeps the process alive while reads are pending, and only then.
//
// An environment that ends (process.exit, worker.terminate) first shuts its devices down in a clean-up hook: the
// running kernel ends, the rest is dropped, and no thread is left that could touch an array or ring the bell.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "addon/external_memory.h"
#include "engine/device.h"

namespace monosem {

class Environment {
 public:
  explicit Environment(Napi::Env env);
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  // The class of errors, constructed with (code, message).
  void setErrorClass(const Napi::Function& errorClass) { errorClass_ = Napi::Persistent(errorClass); }
  Napi::Error error(const Failure& failure) const;

  void add(const std::shared_ptr<Device>& device);

  const std::shared_ptr<ExternalMemory>& externalMemory() const { return externalMemory_; }

  // Called on the JavaScript thread when the work of a pending read has succeeded; what it returns resolves the
  // promise, nothing means that it has asked for more work with `continueRead`.
  using Finish = std::function<std::optional<Napi::Value>(Napi::Env env, uint64_t read, const Napi::Object& kept)>;

  // A new promise for a read on `device`. `kept` holds the arrays that queued work writes to.
  struct Read {
    uint64_t number;
    Napi::Promise promise;
    Device::Completion completion;
  };
  Read beginRead(const std::shared_ptr<Device>& device, const Napi::Object& kept, Finish finish);
  // The next part of a read whose work is not over.
  Device::Completion continueRead(uint64_t number, const Napi::Object& kept, Finish finish);

 private:
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference kept;
    Finish finish;
    std::shared_ptr<Device> device;
  };
  static void deliver(Napi::Env env, Napi::Function, Environment* environment, void*);
  using Bell = Napi::TypedThreadSafeFunction<Environment, void, &Environment::deliver>;

  // Shared with queued work; holds nothing that belongs to JavaScript.
  struct Mailbox {
    struct Outcome {
      uint64_t read;
      std::optional<Failure> failure;
    };
    std::mutex mutex;
    std::vector<Outcome> outcomes;
    std::optional<Bell> bell;  // none once the environment ends
    void post(uint64_t read, const Failure* failure);
  };

  Device::Completion completion(uint64_t number) const;
  void settle(Napi::Env env, const Mailbox::Outcome& outcome);
  void end();

  Napi::Env env_;
  Napi::FunctionReference errorClass_;
  std::shared_ptr<ExternalMemory> externalMemory_ = std::make_shared<ExternalMemory>();
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  Bell bell_;
  std::map<uint64_t, Pending> pending_;
  uint64_t nextRead_ = 0;
  std::vector<std::weak_ptr<Device>> devices_;
};

}  // namespace monosem
