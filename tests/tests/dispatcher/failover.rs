//! Two dispatchers with one store in etcd: the one that leads is killed, and stopped.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mezz_tests::{PATIENCE, http_get};
use rustix::process::Signal;
use serde_json::json;

use crate::fixture::{Dispatched, SPARK_4, example, program, text, waiting_program};

/// The shortest that etcd gives.
const LEASE: Duration = Duration::from_secs(2);

/// How much later than promised a standby may lead on a busy machine.
const BUSY: Duration = Duration::from_secs(3);

/// Sends a submission, and leaves its answer to be read.
fn post(address: &str) -> Result<TcpStream> {
    let body = json!({
        "action": "CreateSubmissionRequest",
        "appResource": "local:/late.py",
        "clientSparkVersion": "4.3.0",
        "sparkProperties": {"spark.app.name": "late", "spark.driver.cores": "1000"},
    });
    let body = body.to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /v1/submissions/create HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(stream)
}

#[test]
fn whichever_dispatcher_leads_drivers_go_on() -> Result<()> {
    let mut all = Dispatched::start_two(&format!("{}s", LEASE.as_secs()))?;
    let (first, second) = (all.addresses[0].clone(), all.addresses[1].clone());

    // A stock client asks the standby, which passes it on.
    let app = format!("file:{}", waiting_program(&all)?.display());
    let runner = [
        "--master",
        &format!("spark://{second},{first}"),
        "--class",
        "org.apache.spark.deploy.PythonRunner",
        "spark-internal",
        &app,
        "",
    ];
    let running = all.spark_submit(SPARK_4, &[], &runner)?;
    all.wait_for_log(&running, "first 45")?;
    // No room for it beside the other and its executor. Its file is uploaded.
    let queued = all.submit(&[], &example("pi.py"), &["2"])?;
    let waits = all.driver(&queued)?;
    ensure!(waits["state"] == "SUBMITTED", "{waits}");
    let uploaded = waits["resource"].as_str().context("a resource")?;
    ensure!(uploaded.contains(&first), "{waits}");
    let (_, page) = http_get(&format!("http://{second}/metrics"))?;
    ensure!(page.contains("mezz_dispatcher_leading 0"), "{page}");
    let (_, page) = http_get(&format!("http://{first}/metrics"))?;
    for line in ["mezz_dispatcher_leading 1", "mezz_dispatcher_drivers{state=\"RUNNING\"} 1"] {
        ensure!(page.contains(line), "no `{line}` in {page}");
    }

    let killed = Instant::now();
    all.dispatcher(0)?.kill_9()?;
    all.wait_for_page(1, "ok")?;
    let took = killed.elapsed();
    eprintln!("the standby led {:.2} s after kill -9", took.as_secs_f64());
    ensure!(took < LEASE + Duration::from_secs(1) + BUSY, "{took:?}");
    // A stock client finds it in its list.
    let status = all.spark(SPARK_4)?.args(["--status", &running]).output()?;
    ensure!(text(&status.stderr).contains("RUNNING"), "{}", text(&status.stderr));
    std::fs::write(all.cluster.folder().join("go"), "")?;
    let end = all.wait_for(&running, "FINISHED")?;
    ensure!(end["launches"] == 1, "{end}");
    ensure!(all.logs(&running)?.contains("second 4950"), "{}", all.logs(&running)?);
    // It has its file from the one that leads now.
    let end = all.wait_for(&queued, "FINISHED")?;
    ensure!(end["launches"] == 1, "{end}");

    all.spawn_dispatcher(0)?;
    all.wait_for_page(0, &format!("the leader is {second}"))?;
    let lines = "import time\nprint('it sleeps', flush=True)\ntime.sleep(3600)\n";
    let sleeping = program(&all, "sleeping.py", lines)?;
    let sleeping = all.submit(&["spark.driver.supervise=true"], &sleeping, &[])?;
    all.wait_for_log(&sleeping, "it sleeps")?;
    all.dispatcher(1)?.signal(Signal::STOP)?;
    // It finds this in its socket when it goes on.
    let mut late = post(&second)?;
    all.wait_for_page(0, "ok")?;
    let kill = all.command(&["kill", &sleeping]).env("MEZZ_DISPATCHER", &first).output()?;
    ensure!(kill.status.success(), "{}", text(&kill.stderr));
    let list = |address: &str| http_get(&format!("http://{address}/mezz/v1/submissions"));
    mezz_tests::eventually(PATIENCE, "the driver is killed", || {
        let page = list(&first)?.1;
        Ok(if page.contains("KILLED") { Ok(()) } else { Err(page) })
    })?;
    all.dispatcher(1)?.signal(Signal::CONT)?;
    all.dispatcher(1)?.wait_for_output("this dispatcher leads no more", PATIENCE)?;
    all.wait_for_page(1, &format!("the leader is {first}"))?;
    // It did nothing by itself; it may have passed it on to the one that leads.
    let mut answer = String::new();
    late.read_to_string(&mut answer)?;
    let passed_on = answer.contains("\"success\":true");
    let drivers = all.drivers()?;
    ensure!(drivers.len() == 3 + usize::from(passed_on), "{answer}\n{drivers:?}");
    ensure!(list(&first)? == list(&second)?, "they tell different things");
    let end = all.driver(&sleeping)?;
    ensure!(end["state"] == "KILLED" && end["launches"] == 1, "{end}");
    ensure!(all.logs(&running)?.contains("second 4950"), "{}", all.logs(&running)?);
    all.nothing_is_left()?;
    all.stop()
}
