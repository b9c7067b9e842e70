// Any ATen operator by name: arguments are converted by its schema and it is called through libtorch's boxed dispatcher.
#include <cmath>
#include <sstream>

#include "context.h"

namespace covey {
namespace {

ArgumentKind kindOfList(const c10::TypePtr& element) {
  using K = c10::TypeKind;
  switch (element->kind()) {
    case K::TensorType: return ArgumentKind::tensorList;
    case K::OptionalType: return ArgumentKind::optionalTensorList;
    case K::IntType: case K::SymIntType: return ArgumentKind::integerList;
    case K::FloatType: return ArgumentKind::floatingList;
    case K::BoolType: return ArgumentKind::booleanList;
    default: throw std::runtime_error("unsupported list element type " + element->str());
  }
}

Argument classify(const c10::Argument& argument) {
  Argument result{ArgumentKind::tensor, false, false, 0, {}};
  auto type = argument.type();
  if (type->kind() == c10::TypeKind::OptionalType) {
    result.optional = true;
    type = type->castRaw<c10::OptionalType>()->getElementType();
  }
  if (argument.default_value()) {
    result.hasDefault = true;
    result.defaultValue = *argument.default_value();
  }
  if (argument.N()) result.fixedLength = *argument.N();
  using K = c10::TypeKind;
  switch (type->kind()) {
    case K::TensorType: result.kind = result.optional ? ArgumentKind::optionalTensor : ArgumentKind::tensor; break;
    case K::IntType: case K::SymIntType: result.kind = ArgumentKind::integer; break;
    case K::FloatType: result.kind = ArgumentKind::floating; break;
    case K::BoolType: result.kind = ArgumentKind::boolean; break;
    case K::NumberType: result.kind = ArgumentKind::scalar; break;
    case K::StringType: result.kind = ArgumentKind::text; break;
    case K::DeviceObjType: result.kind = ArgumentKind::device; break;
    case K::GeneratorType: result.kind = ArgumentKind::generator; break;
    case K::ListType: result.kind = kindOfList(type->castRaw<c10::ListType>()->getElementType()); break;
    default: throw std::runtime_error("unsupported argument type " + type->str() + " of " + argument.name());
  }
  return result;
}

c10::Scalar toScalar(napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  if (type == napi_boolean) {
    bool flag;
    napi_get_value_bool(env, value, &flag);
    return c10::Scalar(flag);
  }
  const double number = toNumber(env, value);
  // A whole number stays an integer, so that integer tensors are not promoted.
  if (std::floor(number) == number && std::fabs(number) < 9e15) return c10::Scalar(static_cast<int64_t>(number));
  return c10::Scalar(number);
}

c10::IValue absent(const Context& context, const Argument& argument) {
  // What an operator makes out of nothing is made where everything is.
  if (argument.kind == ArgumentKind::device && !context.place.isCpu()) return context.place.device;
  if (argument.kind == ArgumentKind::optionalTensor) return c10::IValue();
  if (argument.hasDefault) return argument.defaultValue;
  if (argument.optional || argument.kind == ArgumentKind::generator) return c10::IValue();
  throw std::runtime_error("missing required argument");
}

template <class F>
void eachElement(napi_env env, napi_value array, F&& f) {
  uint32_t length;
  if (napi_get_array_length(env, array, &length) != napi_ok) throw std::runtime_error("expected an array");
  for (uint32_t i = 0; i < length; i++) {
    napi_value item;
    napi_get_element(env, array, i, &item);
    f(item);
  }
}

c10::IValue convert(napi_env env, const Context& context, const Argument& argument, napi_value value) {
  if (isNullish(env, value)) return absent(context, argument);
  auto tensorOf = [&](napi_value item) { return context.get(static_cast<int64_t>(toNumber(env, item))); };
  switch (argument.kind) {
    case ArgumentKind::tensor: case ArgumentKind::optionalTensor: return tensorOf(value);
    case ArgumentKind::integer: return static_cast<int64_t>(toNumber(env, value));
    case ArgumentKind::floating: return toNumber(env, value);
    case ArgumentKind::boolean: {
      bool flag;
      return napi_get_value_bool(env, value, &flag) == napi_ok ? flag : toNumber(env, value) != 0;
    }
    case ArgumentKind::scalar: return toScalar(env, value);
    case ArgumentKind::text: return toText(env, value);
    case ArgumentKind::integerList: return toIntegers(env, value, argument.fixedLength);
    case ArgumentKind::floatingList: {
      std::vector<double> list;
      eachElement(env, value, [&](napi_value item) { list.push_back(toNumber(env, item)); });
      return list;
    }
    case ArgumentKind::booleanList: {
      c10::List<bool> list;
      eachElement(env, value, [&](napi_value item) {
        bool flag = false;
        napi_get_value_bool(env, item, &flag);
        list.push_back(flag);
      });
      return list;
    }
    case ArgumentKind::tensorList: {
      c10::List<Tensor> list;
      eachElement(env, value, [&](napi_value item) { list.push_back(tensorOf(item)); });
      return list;
    }
    case ArgumentKind::optionalTensorList: {
      c10::List<Optional<Tensor>> list;
      eachElement(env, value, [&](napi_value item) { list.push_back(isNullish(env, item) ? Optional<Tensor>() : Optional<Tensor>(tensorOf(item))); });
      return list;
    }
    case ArgumentKind::device: return c10::Device(toText(env, value));
    case ArgumentKind::generator: return c10::IValue();
  }
  return {};
}

napi_value toJs(const Call& call, const c10::IValue& value) {
  if (value.isTensor()) return call.wrap(value.toTensor());
  if (value.isInt()) return call.wrapNumber(static_cast<double>(value.toInt()));
  if (value.isDouble()) return call.wrapNumber(value.toDouble());
  if (value.isBool()) return call.wrapNumber(value.toBool() ? 1 : 0);
  if (value.isScalar()) return call.wrapNumber(value.toScalar().toDouble());
  if (value.isTensorList()) {
    const auto list = value.toTensorVector();
    napi_value array;
    napi_create_array_with_length(call.env, list.size(), &array);
    for (size_t i = 0; i < list.size(); i++) napi_set_element(call.env, array, i, call.wrap(list[i]));
    return array;
  }
  throw std::runtime_error("unsupported return type " + value.tagKind());
}

// lookup(name, overload) -> operator number
napi_value lookup(Call& call) {
  const std::string name = call.text(0);
  const std::string overload = call.isNull(1) ? "" : call.text(1);
  auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), overload.c_str());
  Operator op{handle, {}, name};
  for (const auto& argument : handle.schema().arguments()) op.arguments.push_back(classify(argument));
  call.context->operators.push_back(std::move(op));
  return call.wrapNumber(static_cast<double>(call.context->operators.size() - 1));
}

// call(operator, ...arguments) -> handle, number, or an array of these
napi_value callOperator(Call& call) {
  const size_t index = static_cast<size_t>(call.integer(0));
  Context& context = *call.context;
  if (index >= context.operators.size()) throw std::runtime_error("unknown operator number " + std::to_string(index));
  const Operator& op = context.operators[index];
  auto& stack = context.stack;
  stack.clear();
  for (size_t i = 0; i < op.arguments.size(); i++) {
    try {
      const bool given = i + 1 < call.count;
      stack.push_back(given ? convert(call.env, context, op.arguments[i], call.values[i + 1]) : absent(context, op.arguments[i]));
    } catch (const std::exception& error) {
      stack.clear();
      throw std::runtime_error(op.name + " argument " + std::to_string(i) + ": " + error.what());
    }
  }
  if (context.profile.on) {
    context.profile.rename(op.name);
    for (const c10::IValue& argument : stack) context.profile.noteInput(argument);
  }
  op.handle.callBoxed(&stack);
  if (!stack.empty() && stack[0].isTensor() && stack[0].toTensor().defined()) context.noteShape(stack[0].toTensor());
  napi_value result;
  if (stack.size() == 1) {
    result = toJs(call, stack[0]);
  } else {
    napi_create_array_with_length(call.env, stack.size(), &result);
    for (size_t i = 0; i < stack.size(); i++) napi_set_element(call.env, result, i, toJs(call, stack[i]));
  }
  stack.clear();
  return result;
}

}  // namespace

void defineDispatcher(napi_env env, napi_value exports) {
  define(env, exports, {{"lookup", entry<lookup>}, {"call", entry<callOperator>}});
}
}  // namespace covey
