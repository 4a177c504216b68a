//! Two dispatchers with one store in etcd: the one that leads is killed, and stopped.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mezz_tests::{PATIENCE, http_get};
use rustix::process::Signal;
use serde_json::json;

use crate::fixture::{Dispatched, SPARK_4, plain_home, program, quick, text, waiting_program};

/// The shortest that etcd gives.
const LEASE: Duration = Duration::from_secs(2);

/// How much later than promised a standby may lead on a busy machine.
const BUSY: Duration = Duration::from_secs(10);

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

/// Kills the leader and waits until the other one leads.
fn kill_the_first(all: &mut Dispatched) -> Result<()> {
    let killed = Instant::now();
    all.kill_9(0)?;
    all.wait_for_page(1, "ok")?;
    let took = killed.elapsed();
    eprintln!("the standby led {:.2} s after kill -9", took.as_secs_f64());
    ensure!(took < LEASE + Duration::from_secs(1) + BUSY, "{took:?}");
    Ok(())
}

#[test]
fn drivers_of_a_killed_dispatcher_go_on_and_stock_clients_find_the_next() -> Result<()> {
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
    let queued = all.submit(&[&plain_home(&all)?], &quick(&all)?, &[])?;
    let waits = all.driver(&queued)?;
    ensure!(waits["state"] == "SUBMITTED", "{waits}");
    kill_the_first(&mut all)?;
    // A stock client finds the other in its list.
    let status = all.spark(SPARK_4)?.args(["--status", &running]).output()?;
    ensure!(text(&status.stderr).contains("RUNNING"), "{}", text(&status.stderr));
    std::fs::write(all.cluster.folder().join("go"), "")?;
    for id in [&running, &queued] {
        let end = all.wait_for(id, "FINISHED")?;
        ensure!(end["launches"] == 1, "{end}");
    }
    ensure!(all.logs(&running)?.contains("second 4950"), "{}", all.logs(&running)?);
    all.nothing_is_left()?;
    all.stop()
}

#[test]
fn whichever_dispatcher_leads_nothing_is_lost_or_done_twice() -> Result<()> {
    let mut all = Dispatched::start_two(&format!("{}s", LEASE.as_secs()))?;
    let (first, second) = (all.addresses[0].clone(), all.addresses[1].clone());
    let go = all.cluster.folder().join("go");
    let lines = format!(
        "import os, time\nprint('it runs', flush=True)\n\
         while not os.path.exists({go:?}):\n    time.sleep(0.05)\n"
    );
    let waiting = program(&all, "waiting.py", &lines)?;
    let quick = quick(&all)?;
    let home = plain_home(&all)?;
    // One at a time.
    let submit = |all: &Dispatched, program: &Path| {
        all.submit(&[&home, "spark.driver.cores=2"], program, &[])
    };
    let running = submit(&all, &waiting)?;
    all.wait_for_log(&running, "it runs")?;
    let queued = submit(&all, &quick)?;
    let waits = all.driver(&queued)?;
    let uploaded = waits["resource"].as_str().context("a resource")?;
    ensure!(waits["state"] == "SUBMITTED" && uploaded.contains(&first), "{waits}");
    let (_, page) = http_get(&format!("http://{second}/metrics"))?;
    ensure!(page.contains("mezz_dispatcher_leading 0"), "{page}");
    // Its own log is read before the master has told that it runs.
    all.wait_for(&running, "RUNNING")?;
    let (_, page) = http_get(&format!("http://{first}/metrics"))?;
    for line in ["mezz_dispatcher_leading 1", "mezz_dispatcher_drivers{state=\"RUNNING\"} 1"] {
        ensure!(page.contains(line), "no `{line}` in {page}");
    }

    kill_the_first(&mut all)?;
    std::fs::write(&go, "")?;
    // The second has its file from the one that leads now.
    for id in [&running, &queued] {
        let end = all.wait_for(id, "FINISHED")?;
        ensure!(end["launches"] == 1, "{end}");
    }
    std::fs::remove_file(&go)?;
    all.spawn_dispatcher(0)?;
    all.wait_for_page(0, &format!("the leader is {second}"))?;
    let sleeping = submit(&all, &waiting)?;
    all.wait_for_log(&sleeping, "it runs")?;
    let hopeless = program(&all, "hopeless.py", "print('never')\n")?;
    let hopeless = submit(&all, &hopeless)?;
    let uploaded = all.driver(&hopeless)?["resource"].as_str().unwrap_or_default().to_owned();
    let token = uploaded.rsplit('/').nth(1).context("a token")?;

    all.dispatcher(1)?.signal(Signal::STOP)?;
    // It finds this in its socket when it goes on.
    let mut late = post(&second)?;
    // Its file is lost, with a disk.
    std::fs::remove_file(all.cluster.folder().join("uploads").join(token))?;
    all.wait_for_page(0, "ok")?;
    let list = |address: &str| http_get(&format!("http://{address}/mezz/v1/submissions"));
    let tells = |what: &str| {
        mezz_tests::eventually(PATIENCE, &format!("the new leader tells of {what}"), || {
            let page = list(&first)?.1;
            Ok(if page.contains(what) { Ok(()) } else { Err(page) })
        })
    };
    tells("submit it again")?;
    let kill = all.command(&["kill", &sleeping]).env("MEZZ_DISPATCHER", &first).output()?;
    ensure!(kill.status.success(), "{}", text(&kill.stderr));
    tells("KILLED")?;
    all.dispatcher(1)?.signal(Signal::CONT)?;
    all.wait_for_page(1, &format!("the leader is {first}"))?;
    // It did nothing by itself; it may have passed it on to the one that leads.
    let mut answer = String::new();
    late.read_to_string(&mut answer)?;
    let passed_on = answer.contains("\"success\":true");
    let drivers = all.drivers()?;
    ensure!(drivers.len() == 4 + usize::from(passed_on), "{answer}\n{drivers:?}");
    mezz_tests::eventually(PATIENCE, "they tell the same", || {
        let both = (list(&first)?, list(&second)?);
        Ok(if both.0 == both.1 { Ok(()) } else { Err(format!("{both:?}")) })
    })?;
    for (id, state, launches) in
        [(&sleeping, "KILLED", 1), (&hopeless, "FAILED", 0), (&running, "FINISHED", 1)]
    {
        let end = all.driver(id)?;
        ensure!(end["state"] == state && end["launches"] == launches, "{end}");
    }
    all.nothing_is_left()?;
    all.stop()
}
