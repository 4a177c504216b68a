//! What operators ask: lists from the read model, the rest from the core.

use std::sync::Arc;

use mezz_proto::mezz::v1::{operator_server::Operator, *};
use tonic::{Request, Response, Status};

use super::{
    pages::answers::{Answers, NoPage},
    server::Identity,
    status_of_operator_error,
};
use crate::{
    core::{OperatorCommand, OperatorReply},
    shell::{
        handle::{CoreHandle, NoAnswer},
        limits::OPERATOR_TIMEOUT,
        read_model::ReadModel,
    },
};

/// The gRPC service.
#[derive(Debug)]
pub struct OperatorService {
    /// For what the core must answer.
    pub core: CoreHandle,
    /// For lists.
    pub model: Arc<ReadModel>,
    /// Who this master is.
    pub identity: Arc<Identity>,
    /// Who makes lists, the same that make large pages.
    pub answers: Answers,
    /// Who makes what is small.
    pub quick: Answers,
}

type Reply<T> = Result<Response<T>, Status>;

impl OperatorService {
    async fn ask(&self, command: OperatorCommand) -> Result<OperatorReply, Status> {
        match self.core.operate(command, OPERATOR_TIMEOUT).await {
            Ok(answer) => answer.map_err(|e| status_of_operator_error(&e)),
            Err(NoAnswer::Stopped) => Err(Status::unavailable("the master is stopping")),
            Err(NoAnswer::TooLate) => Err(Status::deadline_exceeded(format!(
                "the master did not answer within {} s; it is overloaded, try again",
                OPERATOR_TIMEOUT.as_secs()
            ))),
        }
    }

    /// Reads off the async threads, few at a time: a list may be long, and neither others
    /// nor the registry, which writes on such threads, must wait while it is made.
    async fn read<T: Send + 'static>(
        &self,
        answers: &Answers,
        list: impl FnOnce(&ReadModel) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let model = self.model.clone();
        answers.make(move || list(&model)).await.map_err(|error| match error {
            NoPage::Failed(_) => Status::internal(error.to_string()),
            _ => Status::unavailable(error.to_string()),
        })
    }

    async fn order(&self, command: OperatorCommand) -> Result<(), Status> {
        match self.ask(command).await? {
            OperatorReply::Done => Ok(()),
            other => Err(mismatch(&other)),
        }
    }
}

/// The core answered something else than what was asked: a fault of ours.
fn mismatch(reply: &OperatorReply) -> Status {
    let name = match reply {
        OperatorReply::Explain(_) => "Explain",
        OperatorReply::Roles(_) => "Roles",
        OperatorReply::Done => "Done",
    };
    Status::internal(format!("the master answered {name}, which was not asked"))
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn get_master(&self, _: Request<GetMasterRequest>) -> Reply<GetMasterResponse> {
        let totals = self.read(&self.quick, ReadModel::totals).await?;
        Ok(Response::new(GetMasterResponse {
            id: self.identity.id.clone(),
            address: self.identity.address.clone(),
            leader: Some(self.identity.address.clone()),
            version: self.identity.version.to_owned(),
            start_time: self.identity.clock.start_time().as_secs_f64(),
            agents_active: totals.agents_active,
            frameworks_active: totals.frameworks_active,
            tasks_live: totals.tasks_live,
            offers_outstanding: totals.offers_outstanding,
        }))
    }

    async fn list_agents(&self, _: Request<ListAgentsRequest>) -> Reply<ListAgentsResponse> {
        let agents = self.read(&self.answers, ReadModel::agents).await?;
        Ok(Response::new(ListAgentsResponse { agents }))
    }

    async fn list_frameworks(
        &self,
        request: Request<ListFrameworksRequest>,
    ) -> Reply<ListFrameworksResponse> {
        let completed = request.get_ref().completed.unwrap_or(false);
        let frameworks = self.read(&self.answers, move |model| model.frameworks(completed)).await?;
        Ok(Response::new(ListFrameworksResponse { frameworks }))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Reply<ListTasksResponse> {
        let tasks = self.read(&self.answers, move |model| model.tasks(request.get_ref())).await?;
        Ok(Response::new(tasks))
    }

    async fn list_offers(&self, _: Request<ListOffersRequest>) -> Reply<ListOffersResponse> {
        let offers = self.read(&self.answers, ReadModel::offers).await?;
        Ok(Response::new(ListOffersResponse { offers }))
    }

    async fn list_roles(&self, _: Request<ListRolesRequest>) -> Reply<ListRolesResponse> {
        match self.ask(OperatorCommand::ListRoles).await? {
            OperatorReply::Roles(roles) => Ok(Response::new(roles)),
            other => Err(mismatch(&other)),
        }
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Reply<ExplainResponse> {
        match self.ask(OperatorCommand::Explain(request.into_inner())).await? {
            OperatorReply::Explain(explanation) => Ok(Response::new(explanation)),
            other => Err(mismatch(&other)),
        }
    }

    async fn kill_task(
        &self,
        request: Request<OperatorKillTaskRequest>,
    ) -> Reply<OperatorKillTaskResponse> {
        self.order(OperatorCommand::KillTask(request.into_inner())).await?;
        Ok(Response::new(OperatorKillTaskResponse {}))
    }

    async fn teardown(&self, request: Request<TeardownRequest>) -> Reply<TeardownResponse> {
        self.order(OperatorCommand::Teardown(request.into_inner())).await?;
        Ok(Response::new(TeardownResponse {}))
    }

    async fn update_weights(
        &self,
        request: Request<UpdateWeightsRequest>,
    ) -> Reply<UpdateWeightsResponse> {
        self.order(OperatorCommand::UpdateWeights(request.into_inner())).await?;
        Ok(Response::new(UpdateWeightsResponse {}))
    }

    async fn drain_agent(&self, request: Request<DrainAgentRequest>) -> Reply<DrainAgentResponse> {
        self.order(OperatorCommand::DrainAgent(request.into_inner())).await?;
        Ok(Response::new(DrainAgentResponse {}))
    }

    async fn deactivate_agent(
        &self,
        request: Request<DeactivateAgentRequest>,
    ) -> Reply<DeactivateAgentResponse> {
        self.order(OperatorCommand::DeactivateAgent(request.into_inner())).await?;
        Ok(Response::new(DeactivateAgentResponse {}))
    }

    async fn reactivate_agent(
        &self,
        request: Request<ReactivateAgentRequest>,
    ) -> Reply<ReactivateAgentResponse> {
        self.order(OperatorCommand::ReactivateAgent(request.into_inner())).await?;
        Ok(Response::new(ReactivateAgentResponse {}))
    }

    async fn mark_agent_gone(
        &self,
        request: Request<MarkAgentGoneRequest>,
    ) -> Reply<MarkAgentGoneResponse> {
        self.order(OperatorCommand::MarkAgentGone(request.into_inner().agent_id)).await?;
        Ok(Response::new(MarkAgentGoneResponse {}))
    }
}
