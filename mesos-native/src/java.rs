//! All that crosses between Rust and the JVM.

use std::{
    any::Any,
    collections::BTreeMap,
    ffi::CStr,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::OnceLock,
    thread,
};

use jni::{
    Env, EnvUnowned, JValue, JavaVM,
    errors::ErrorPolicy,
    jni_sig, jni_str,
    objects::{JByteArray, JClass, JClassLoader, JCollection, JObject, JString, JThread},
    refs::Global,
    signature::RuntimeMethodSignature,
    strings::JNIString,
    sys::{JNI_OK, JNI_VERSION_1_8, JavaVMAttachArgs},
};
use prost::Message;
use tracing::error;

use crate::{error::Error, life::Status};

/// Local references that one callback or one message needs: what a callback is given in a
/// list leaves none behind.
const FRAME: usize = 16;

/// As libmesos' threads have: callbacks may recurse deeply, and `-Xss` does not count here.
const STACK_BYTES: usize = 8 << 20;

/// The body of every native method: errors and panics become a `RuntimeException`.
pub(crate) fn enter<'l, T: Default>(
    env: &mut EnvUnowned<'l>,
    body: impl FnOnce(&mut Env<'l>) -> Result<T, Error>,
) -> T {
    env.with_env(body).resolve::<Throw>()
}

struct Throw;

impl<T: Default> ErrorPolicy<T, Error> for Throw {
    type Captures<'unowned: 'native, 'native> = ();

    fn on_error<'unowned: 'native, 'native>(
        env: &mut Env<'unowned>,
        (): &mut (),
        error: Error,
    ) -> jni::errors::Result<T> {
        throw(env, error.to_string());
        Ok(T::default())
    }

    fn on_panic<'unowned: 'native, 'native>(
        env: &mut Env<'unowned>,
        (): &mut (),
        payload: Box<dyn Any + Send>,
    ) -> jni::errors::Result<T> {
        throw(env, format!("a defect in libmezzmesos: {}", panic_text(&*payload)));
        Ok(T::default())
    }
}

/// Throws a `RuntimeException`, unless another exception is on its way already.
fn throw(env: &mut Env<'_>, text: String) {
    if !env.exception_check() {
        // Answers by the error that the exception is.
        let _ = env.throw(text);
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

/// The bytes of a message of the JVM's, read as one of ours.
pub(crate) fn read<M: Message + Default>(
    env: &mut Env<'_>,
    what: &'static str,
    message: &JObject<'_>,
) -> Result<M, Error> {
    if message.is_null() {
        return Err(Error::Null(what));
    }
    env.with_local_frame(FRAME, |env| {
        let bytes =
            env.call_method(message, jni_str!("toByteArray"), jni_sig!("()[B"), &[])?.l()?;
        let bytes = env.cast_local::<JByteArray<'_>>(bytes)?;
        let bytes = env.convert_byte_array(&bytes)?;
        M::decode(&*bytes).map_err(|source| Error::Message { what, source })
    })
}

/// As [`read`]; null is nothing.
pub(crate) fn read_if_any<M: Message + Default>(
    env: &mut Env<'_>,
    what: &'static str,
    message: &JObject<'_>,
) -> Result<Option<M>, Error> {
    if message.is_null() { Ok(None) } else { read(env, what, message).map(Some) }
}

/// As [`read`], each of a collection.
pub(crate) fn read_all<M: Message + Default>(
    env: &mut Env<'_>,
    what: &'static str,
    collection: &JObject<'_>,
) -> Result<Vec<M>, Error> {
    if collection.is_null() {
        return Err(Error::Null(what));
    }
    env.with_local_frame(FRAME, |env| {
        let array = env.as_cast::<JCollection<'_>>(collection)?.to_array(env)?;
        (0..array.len(env)?)
            .map(|i| {
                env.with_local_frame(FRAME, |env| {
                    let message = array.get_element(env, i)?;
                    read(env, what, &message)
                })
            })
            .collect()
    })
}

/// Each string of a collection.
pub(crate) fn read_strings(
    env: &mut Env<'_>,
    what: &'static str,
    collection: &JObject<'_>,
) -> Result<Vec<String>, Error> {
    if collection.is_null() {
        return Err(Error::Null(what));
    }
    env.with_local_frame(FRAME, |env| {
        let array = env.as_cast::<JCollection<'_>>(collection)?.to_array(env)?;
        (0..array.len(env)?)
            .map(|i| {
                env.with_local_frame(FRAME, |env| {
                    let text = array.get_element(env, i)?;
                    if text.is_null() {
                        return Err(Error::Null(what));
                    }
                    Ok(env.cast_local::<JString<'_>>(text)?.try_to_string(env)?)
                })
            })
            .collect()
    })
}

pub(crate) fn read_bytes(
    env: &mut Env<'_>,
    what: &'static str,
    bytes: &JByteArray<'_>,
) -> Result<Vec<u8>, Error> {
    if bytes.is_null() {
        return Err(Error::Null(what));
    }
    Ok(env.convert_byte_array(bytes)?)
}

/// A driver's status as the JVM knows it. Only for native methods: elsewhere the class is not
/// found.
pub(crate) fn status<'l>(env: &mut Env<'l>, status: Status) -> Result<JObject<'l>, Error> {
    let class = env.find_class(jni_str!("org/apache/mesos/Protos$Status"))?;
    let by_number = jni_sig!("(I)Lorg/apache/mesos/Protos$Status;");
    let number = JValue::Int(status as i32);
    Ok(env.call_static_method(class, jni_str!("valueOf"), by_number, &[number])?.l()?)
}

/// The number in a driver's field `__driver`.
pub(crate) fn handle_of(env: &mut Env<'_>, driver: &JObject<'_>) -> Result<i64, Error> {
    Ok(env.get_field(driver, jni_str!("__driver"), jni_sig!("J"))?.j()?)
}

pub(crate) fn set_handle(
    env: &mut Env<'_>,
    driver: &JObject<'_>,
    handle: i64,
) -> Result<(), Error> {
    Ok(env.set_field(driver, jni_str!("__driver"), jni_sig!("J"), JValue::Long(handle))?)
}

/// Classes of messages that callbacks are given. They are looked up in a native method,
/// because threads that the JVM did not start find only the JVM's own classes.
pub(crate) struct Messages(BTreeMap<&'static str, Class>);

struct Class {
    class: Global<JClass<'static>>,
    parse_from: RuntimeMethodSignature,
}

impl Messages {
    pub fn load(env: &mut Env<'_>, names: &[&'static str]) -> Result<Self, Error> {
        let mut classes = BTreeMap::new();
        for name in names {
            let path = format!("org/apache/mesos/Protos${name}");
            let class = env.find_class(JNIString::new(&path))?;
            let class = env.new_global_ref(class)?;
            let parse_from = RuntimeMethodSignature::from_str(format!("([B)L{path};"))?;
            classes.insert(*name, Class { class, parse_from });
        }
        Ok(Self(classes))
    }

    /// One of our messages as the JVM's of that name.
    pub fn make<'l>(
        &self,
        env: &mut Env<'l>,
        name: &'static str,
        message: &impl Message,
    ) -> Result<JObject<'l>, Error> {
        let Class { class, parse_from } = self.0.get(name).ok_or(Error::Null(name))?;
        let bytes = env.byte_array_from_slice(&message.encode_to_vec())?;
        let signature = parse_from.method_signature();
        let argument = [JValue::Object(&bytes)];
        let made = env.call_static_method(class, jni_str!("parseFrom"), signature, &argument)?;
        env.delete_local_ref(bytes);
        Ok(made.l()?)
    }
}

/// Keeps the class that loaded this library, and so the library itself, which threads run in.
static PINNED: OnceLock<Global<JClass<'static>>> = OnceLock::new();

/// Starts a thread that the JVM knows, and that does not keep it from ending. Its context
/// class loader is that of the object whose methods it will call. However the thread ends,
/// also without having called `body`, `on_end` is called last: nobody may wait for it for ever.
pub(crate) fn start_thread(
    env: &mut Env<'_>,
    name: &'static CStr,
    callbacks: &JObject<'_>,
    body: impl FnOnce(&mut Env<'_>) + Send + 'static,
    on_end: impl FnOnce() + Send + 'static,
) -> Result<(), Error> {
    let vm = env.get_java_vm()?;
    let class = env.find_class(jni_str!("org/apache/mesos/MesosNativeLibrary"))?;
    let class = env.new_global_ref(class)?;
    PINNED.get_or_init(|| class);
    let loader = env.get_object_class(callbacks)?.get_class_loader(env)?;
    let loader = env.new_global_ref(loader)?;
    let run = move || {
        let ended = run_attached(&vm, name, loader, body);
        on_end();
        if let Err(reason) = ended {
            error!(reason, "the thread for callbacks has ended early; the driver is aborted");
        }
    };
    let name = name.to_string_lossy().into_owned();
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map(drop)
        .map_err(Error::Thread)
}

/// The error is for the log.
fn run_attached(
    vm: &JavaVM,
    name: &'static CStr,
    loader: Global<JClassLoader<'static>>,
    body: impl FnOnce(&mut Env<'_>),
) -> Result<(), String> {
    attach_as_daemon(vm, name).map_err(|code| format!("it cannot attach to the JVM: {code}"))?;
    let mut ended = Ok(());
    let done = vm.attach_current_thread(|env| -> Result<(), Error> {
        JThread::current_thread(env)?.set_context_class_loader(env, &loader)?;
        let ran = catch_unwind(AssertUnwindSafe(|| body(env)));
        ended =
            ran.map_err(|payload| format!("a defect in libmezzmesos: {}", panic_text(&*payload)));
        Ok(())
    });
    drop(loader);
    detach(vm);
    done.map_err(|error| error.to_string()).and(ended)
}

/// As a daemon, which `jni` cannot: other threads keep a program from ending, also one that
/// never stops its driver.
fn attach_as_daemon(vm: &JavaVM, name: &'static CStr) -> Result<(), i32> {
    let vm = vm.get_raw();
    let mut args = JavaVMAttachArgs {
        version: JNI_VERSION_1_8,
        name: name.as_ptr().cast_mut(),
        group: ptr::null_mut(),
    };
    let mut env = ptr::null_mut();
    // SAFETY: `vm` is the running JVM, and the arguments live until the call returns.
    let code =
        unsafe { ((**vm).v1_4.AttachCurrentThreadAsDaemon)(vm, &mut env, (&raw mut args).cast()) };
    if code == JNI_OK { Ok(()) } else { Err(code) }
}

fn detach(vm: &JavaVM) {
    let vm = vm.get_raw();
    // SAFETY: this thread was attached above, and no reference of its own is left.
    unsafe { ((**vm).v1_1.DetachCurrentThread)(vm) };
}

/// Makes one callback and says whether it came back. An exception is printed, as libmesos
/// does; the driver is then to be aborted.
pub(crate) fn call_back(
    env: &mut Env<'_>,
    callback: impl FnOnce(&mut Env<'_>) -> Result<(), Error>,
) -> bool {
    let Err(error) = env.with_local_frame(FRAME, callback) else { return true };
    if env.exception_check() {
        env.exception_describe();
        env.exception_clear();
    } else {
        error!(%error, "a callback could not be made");
    }
    false
}
