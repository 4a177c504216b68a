//! The native method of `MesosNativeLibrary`.

use jni::{
    EnvUnowned, jni_sig, jni_str,
    objects::{JClass, JObject},
};

use crate::java::enter;

/// The last release of Apache Mesos: what programs that ask may count on.
const VERSION: [i64; 3] = [1, 11, 0];

#[unsafe(export_name = "Java_org_apache_mesos_MesosNativeLibrary__1version")]
extern "system" fn version<'l>(mut env: EnvUnowned<'l>, _class: JClass<'l>) -> JObject<'l> {
    enter(&mut env, |env| {
        let class = env.find_class(jni_str!("org/apache/mesos/MesosNativeLibrary$Version"))?;
        Ok(env.new_object(class, jni_sig!("(JJJ)V"), &VERSION.map(Into::into))?)
    })
}
