//! How methods are registered: by name, with the number of arguments that they take.

use crate::{
    api::Api,
    args::Args,
    errors::{INTERNAL, RpcError, RpcResult},
    workers::Cancel,
};
use jsonrpsee::{RpcModule, types::ErrorObjectOwned};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::{future::Future, sync::Arc};

/// What a registered method answers: JSON that was written where the work was done.
type Answer = Result<Box<RawValue>, ErrorObjectOwned>;

/// All methods of the server.
pub(crate) struct Registry {
    module: RpcModule<Api>,
}

impl Registry {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        Self { module: RpcModule::from_arc(api) }
    }

    pub(crate) fn into_module(self) -> RpcModule<Api> {
        self.module
    }

    pub(crate) fn module_mut(&mut self) -> &mut RpcModule<Api> {
        &mut self.module
    }

    /// A method that answers from memory, at once.
    pub(crate) fn quick<T, F>(&mut self, name: &'static str, arg_count_max: usize, method: F)
    where
        T: Serialize,
        F: Fn(&Api, &Args) -> RpcResult<T> + Send + Sync + 'static,
    {
        let callback = move |params: jsonrpsee::types::Params<'_>,
                             api: &Api,
                             _: &jsonrpsee::Extensions|
              -> Answer {
            let args = Args::parse(&params, arg_count_max)?;
            Ok(json(&method(api, &args)?)?)
        };
        self.module.register_method(name, callback).expect("method names are unique");
    }

    /// A method that reads from the store, on a worker thread.
    pub(crate) fn read<T, F>(&mut self, name: &'static str, arg_count_max: usize, method: F)
    where
        T: Serialize,
        F: Fn(&Api, &Args) -> RpcResult<T> + Copy + Send + Sync + 'static,
    {
        self.wait(name, arg_count_max, move |api, args| async move {
            let reader = api.clone();
            api.workers.read(move || json(&method(&reader, &args)?)).await
        });
    }

    /// A method that reads from the store for as long as it is asked to, but not without end.
    pub(crate) fn long_read<T, F>(&mut self, name: &'static str, arg_count_max: usize, method: F)
    where
        T: Serialize,
        F: Fn(&Api, &Args, &Cancel) -> RpcResult<T> + Copy + Send + Sync + 'static,
    {
        self.wait(name, arg_count_max, move |api, args| async move {
            let reader = api.clone();
            api.workers.long_read(move |cancel| json(&method(&reader, &args, cancel)?)).await
        });
    }

    /// A method that runs the EVM or the trie, on a worker thread, for a limited time.
    pub(crate) fn call<T, F>(&mut self, name: &'static str, arg_count_max: usize, method: F)
    where
        T: Serialize,
        F: Fn(&Api, &Args, &Cancel) -> RpcResult<T> + Copy + Send + Sync + 'static,
    {
        self.wait(name, arg_count_max, move |api, args| async move {
            let caller = api.clone();
            api.workers.call(move |cancel| json(&method(&caller, &args, cancel)?)).await
        });
    }

    /// A method that waits for something.
    pub(crate) fn wait<T, F, Fut>(&mut self, name: &'static str, arg_count_max: usize, method: F)
    where
        T: Serialize,
        F: Fn(Arc<Api>, Args) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = RpcResult<T>> + Send,
    {
        add(&mut self.module, name, arg_count_max, method);
    }
}

/// Registers a method of any module that waits for something.
pub(crate) fn add<C, T, F, Fut>(
    module: &mut RpcModule<C>,
    name: &'static str,
    arg_count_max: usize,
    method: F,
) where
    C: Send + Sync + 'static,
    T: Serialize,
    F: Fn(Arc<C>, Args) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = RpcResult<T>> + Send,
{
    let callback = move |params: jsonrpsee::types::Params<'static>,
                         context: Arc<C>,
                         _: jsonrpsee::Extensions| async move {
        let args = Args::parse(&params, arg_count_max)?;
        let answer = method(context, args).await?;
        Answer::Ok(json(&answer)?)
    };
    module.register_async_method(name, callback).expect("method names are unique");
}

fn json(value: &impl Serialize) -> RpcResult<Box<RawValue>> {
    to_raw_value(value).map_err(|error| RpcError::new(INTERNAL, error.to_string()))
}
