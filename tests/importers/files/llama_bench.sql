CREATE TABLE IF NOT EXISTS llama_bench (
  build_commit TEXT,
  build_number INTEGER,
  cpu_info TEXT,
  gpu_info TEXT,
  backends TEXT,
  model_filename TEXT,
  model_type TEXT,
  model_size INTEGER,
  model_n_params INTEGER,
  n_batch INTEGER,
  n_ubatch INTEGER,
  n_threads INTEGER,
  cpu_mask TEXT,
  cpu_strict INTEGER,
  poll INTEGER,
  type_k TEXT,
  type_v TEXT,
  n_gpu_layers INTEGER,
  n_cpu_moe INTEGER,
  split_mode TEXT,
  main_gpu INTEGER,
  no_kv_offload INTEGER,
  flash_attn INTEGER,
  devices TEXT,
  tensor_split TEXT,
  tensor_buft_overrides TEXT,
  use_mmap INTEGER,
  embeddings INTEGER,
  no_op_offload INTEGER,
  n_prompt INTEGER,
  n_gen INTEGER,
  n_depth INTEGER,
  test_time TEXT,
  avg_ns INTEGER,
  stddev_ns INTEGER,
  avg_ts REAL,
  stddev_ts REAL
);

INSERT INTO llama_bench (build_commit, build_number, cpu_info, gpu_info, backends, model_filename, model_type, model_size, model_n_params, n_batch, n_ubatch, n_threads, cpu_mask, cpu_strict, poll, type_k, type_v, n_gpu_layers, n_cpu_moe, split_mode, main_gpu, no_kv_offload, flash_attn, devices, tensor_split, tensor_buft_overrides, use_mmap, embeddings, no_op_offload, n_prompt, n_gen, n_depth, test_time, avg_ns, stddev_ns, avg_ts, stddev_ts) VALUES ('c46583b', '6123', 'AMD EPYC 7763 64-Core Processor', 'NVIDIA H100 80GB HBM3', 'CUDA', 'llama-3-8b-f16.gguf', 'llama 8B F16', '16060522496', '8030261248', '2048', '512', '16', '0x0', '0', '50', 'f16', 'f16', '99', '0', 'layer', '0', '0', '1', 'auto', '0.00', 'none', '1', '0', '0', '512', '0', '0', '2025-08-10T12:00:00Z', '64000000', '1000000', '8001.302401', '125.035612');
INSERT INTO llama_bench (build_commit, build_number, cpu_info, gpu_info, backends, model_filename, model_type, model_size, model_n_params, n_batch, n_ubatch, n_threads, cpu_mask, cpu_strict, poll, type_k, type_v, n_gpu_layers, n_cpu_moe, split_mode, main_gpu, no_kv_offload, flash_attn, devices, tensor_split, tensor_buft_overrides, use_mmap, embeddings, no_op_offload, n_prompt, n_gen, n_depth, test_time, avg_ns, stddev_ns, avg_ts, stddev_ts) VALUES ('c46583b', '6123', 'AMD EPYC 7763 64-Core Processor', 'NVIDIA H100 80GB HBM3', 'CUDA', 'llama-3-8b-f16.gguf', 'llama 8B F16', '16060522496', '8030261248', '2048', '512', '16', '0x0', '0', '50', 'f16', 'f16', '99', '0', 'layer', '0', '0', '1', 'auto', '0.00', 'none', '1', '0', '0', '0', '128', '0', '2025-08-10T12:00:00Z', '1600000000', '10000000', '80.002083', '0.500023');
INSERT INTO llama_bench (build_commit, build_number, cpu_info, gpu_info, backends, model_filename, model_type, model_size, model_n_params, n_batch, n_ubatch, n_threads, cpu_mask, cpu_strict, poll, type_k, type_v, n_gpu_layers, n_cpu_moe, split_mode, main_gpu, no_kv_offload, flash_attn, devices, tensor_split, tensor_buft_overrides, use_mmap, embeddings, no_op_offload, n_prompt, n_gen, n_depth, test_time, avg_ns, stddev_ns, avg_ts, stddev_ts) VALUES ('c46583b', '6123', 'AMD EPYC 7763 64-Core Processor', 'NVIDIA H100 80GB HBM3', 'CUDA', 'llama-3-8b-f16.gguf', 'llama 8B F16', '16060522496', '8030261248', '2048', '512', '16', '0x0', '0', '50', 'f16', 'f16', '99', '0', 'layer', '0', '0', '1', 'auto', '0.00', 'none', '1', '0', '0', '0', '128', '4096', '2025-08-10T12:00:00Z', '1800000000', '10000000', '71.112574', '0.395076');
INSERT INTO llama_bench (build_commit, build_number, cpu_info, gpu_info, backends, model_filename, model_type, model_size, model_n_params, n_batch, n_ubatch, n_threads, cpu_mask, cpu_strict, poll, type_k, type_v, n_gpu_layers, n_cpu_moe, split_mode, main_gpu, no_kv_offload, flash_attn, devices, tensor_split, tensor_buft_overrides, use_mmap, embeddings, no_op_offload, n_prompt, n_gen, n_depth, test_time, avg_ns, stddev_ns, avg_ts, stddev_ts) VALUES ('c46583b', '6123', 'AMD EPYC 7763 64-Core Processor', 'NVIDIA H100 80GB HBM3', 'CUDA', 'llama-3-8b-f16.gguf', 'llama 8B F16', '16060522496', '8030261248', '2048', '512', '16', '0x0', '0', '50', 'f16', 'f16', '99', '0', 'layer', '0', '0', '1', 'auto', '0.00', 'none', '1', '0', '0', '512', '128', '0', '2025-08-10T12:00:00Z', '1664000000', '14000000', '384.633536', '3.236214');
