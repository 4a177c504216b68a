//! What running tasks write, as they write it.

use std::sync::Arc;

use mezz_proto::mezz::v1::{self as wire, attach_output::Output};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    Served,
    agent::{Follow, blocking, files, no_files, send},
    files::Reader,
};

/// Parts that may wait for a slow reader.
const QUEUE: usize = 4;

type Parts = mpsc::Receiver<Result<wire::AttachOutput, Status>>;

/// Follows both of the task's outputs from their ends on, until it has ended.
pub(super) async fn attach(
    served: &Arc<Served>,
    request: wire::AttachRequest,
) -> Result<Parts, Status> {
    let (framework, task) = (&request.framework_id, &request.task_id);
    let (key, files) = files(served, framework, task)
        .ok_or_else(|| Status::not_found(no_files(framework, task)))?;
    if !files.live {
        return Err(Status::failed_precondition(format!(
            "task {task} has ended; `mezz logs {task}` prints what it wrote"
        )));
    }
    let (sender, outputs) = mpsc::channel(QUEUE);
    for (path, wrap) in [
        ("stdout", Output::Stdout as fn(Vec<u8>) -> Output),
        ("stderr", Output::Stderr as fn(Vec<u8>) -> Output),
    ] {
        let sandbox = files.sandbox.clone();
        let open = move || Ok(Reader::open_at_end(&sandbox, path)?.over_rotations(&sandbox));
        let reader = blocking(open).await?;
        let (parts, mut received) = mpsc::channel::<Result<wire::FileChunk, Status>>(QUEUE);
        let follow = Follow { served: Arc::clone(served), key: key.clone() };
        let (stop, sender) = (served.stop.clone(), sender.clone());
        let passing = async move {
            loop {
                let part = tokio::select! {
                    () = sender.closed() => return,
                    part = received.recv() => part,
                };
                let Some(part) = part else { return };
                let part = part.map(|chunk| wire::AttachOutput { output: Some(wrap(chunk.data)) });
                if sender.send(part).await.is_err() {
                    return;
                }
            }
        };
        tokio::spawn(async move {
            let both = async { tokio::join!(send(reader, u64::MAX, Some(follow), parts), passing) };
            stop.run_until_cancelled(both).await
        });
    }
    Ok(outputs)
}
