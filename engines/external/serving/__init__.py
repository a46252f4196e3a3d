"""A server under load: vLLM's, AIPerf's or MLPerf LoadGen's client against any server with OpenAI's interface."""
