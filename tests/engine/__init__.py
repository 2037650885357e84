"""A real llama.cpp server on a tiny random Qwen3, for tests that must meet an engine and not a fake."""
