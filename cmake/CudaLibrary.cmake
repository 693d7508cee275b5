# libmonosem_cuda.so, the library of CUDA kernels that the addon opens at run time. It is built beside the addon,
# carries the CUDA runtime in itself, and links neither the driver nor cuBLAS: both are looked for when it is opened.
#
#   include(cmake/CudaLibrary.cmake)              where CMAKE_CUDA_COMPILER is found, at file scope
#   add_cuda_library(native/cuda/library/....cu)  the target monosem_cuda, of these sources
#
# MONOSEM_CUDA_ARCHITECTURES: what to compile for, in CMake's notation for CUDA_ARCHITECTURES ("80-real": machine code,
# "120-virtual": PTX for GPUs to come, which their driver compiles), or "all": every generation from Ampere on and PTX of
# the newest, which takes a core some ten minutes. The environment variable of that name sets the default, which otherwise is
# machine code for the GPUs of this machine; without any, PTX that the driver of whatever GPU it meets compiles.
set(CMAKE_CUDA_ARCHITECTURES OFF)  # no flags by CMake, not all of whose versions know the newer names
enable_language(CUDA)
include(CheckCompilerFlag)
check_compiler_flag(CUDA --compress-mode=size MONOSEM_NVCC_HAS_COMPRESS_MODE)

execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-code OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "sm_[0-9]+" known_gpu_code "${listed}")

# Machine code for each generation from Ampere on, as far as this nvcc knows it, and PTX of the newest. 90a: Hopper with
# its own matrix instructions.
function(all_cuda_architectures result)
  foreach(architecture 80 86 89 90a 100 120)
    string(REGEX MATCH "[0-9]+" number ${architecture})
    if("sm_${number}" IN_LIST known_gpu_code)
      list(APPEND architectures ${architecture}-real)
      set(newest ${number})
    endif()
  endforeach()
  set(${result} ${architectures} ${newest}-virtual PARENT_SCOPE)
endfunction()

function(default_cuda_architectures result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE capabilities RESULT_VARIABLE status ERROR_QUIET)
  set(architectures "")
  if(status EQUAL 0)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" capabilities "${capabilities}")
    foreach(capability ${capabilities})
      string(REPLACE "." "" number ${capability})
      if("sm_${number}" IN_LIST known_gpu_code)
        string(REGEX REPLACE "^90$" "90a" number ${number})
        list(APPEND architectures ${number}-real)
      endif()
    endforeach()
    list(REMOVE_DUPLICATES architectures)
  endif()
  if(NOT architectures)
    set(architectures 80-virtual)
  endif()
  set(${result} ${architectures} PARENT_SCOPE)
endfunction()
if(NOT DEFINED MONOSEM_CUDA_ARCHITECTURES)  # a normal variable, not a cached one: the next build decides anew
  if(NOT "$ENV{MONOSEM_CUDA_ARCHITECTURES}" STREQUAL "")
    set(MONOSEM_CUDA_ARCHITECTURES "$ENV{MONOSEM_CUDA_ARCHITECTURES}")
  else()
    default_cuda_architectures(MONOSEM_CUDA_ARCHITECTURES)
  endif()
endif()
if(MONOSEM_CUDA_ARCHITECTURES STREQUAL "all")
  all_cuda_architectures(cuda_architectures)
else()
  set(cuda_architectures ${MONOSEM_CUDA_ARCHITECTURES})
endif()
message(STATUS "CUDA library for: ${cuda_architectures}")

function(add_cuda_library)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
    message(WARNING "No CUDA library: it needs nvcc 12, and this one is ${CMAKE_CUDA_COMPILER_VERSION}.")
    return()
  endif()
  foreach(architecture ${cuda_architectures})
    if(NOT architecture MATCHES "^([0-9]+[a-z]?)-(real|virtual)$")
      message(FATAL_ERROR "MONOSEM_CUDA_ARCHITECTURES: \"${architecture}\" is not like 80-real or 80-virtual, or all.")
    endif()
    set(code $<IF:$<STREQUAL:${CMAKE_MATCH_2},real>,sm,compute>_${CMAKE_MATCH_1})
    list(APPEND code_options -gencode=arch=compute_${CMAKE_MATCH_1},code=${code})
  endforeach()
  set(compression $<IF:$<BOOL:${MONOSEM_NVCC_HAS_COMPRESS_MODE}>,--compress-mode=size,-Xfatbin=-compress-all>)

  add_library(monosem_cuda MODULE ${ARGN})
  target_include_directories(monosem_cuda PRIVATE native)
  # MONOSEM_CUDA_REPORT in the environment: registers and spills of every kernel on the terminal, and warnings are errors,
  # spills among them. Not for users: an architecture or a release of nvcc that nobody has tried may spill a few bytes.
  set(report $<$<BOOL:$ENV{MONOSEM_CUDA_REPORT}>:-Werror=all-warnings$<SEMICOLON>-Xptxas=-v,-warn-spills>)
  target_compile_options(monosem_cuda PRIVATE ${code_options} ${compression} ${report} -Xcompiler=-Wall,-Wextra)
  # Only monosem_cuda_api is for others: another CUDA runtime in the process, say, keeps its own functions and state. A
  # kernel that is declared but missing is an error now, not when the library is opened.
  set(exports "${CMAKE_CURRENT_BINARY_DIR}/monosem_cuda.map")
  file(CONFIGURE OUTPUT "${exports}" CONTENT "{ global: monosem_cuda_api; local: *; };\n")
  target_link_options(monosem_cuda PRIVATE "LINKER:--version-script=${exports},--no-undefined")
  set_target_properties(monosem_cuda PROPERTIES PREFIX lib SUFFIX .so LINK_DEPENDS "${exports}" CUDA_STANDARD 17
    CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
    CUDA_RUNTIME_LIBRARY Static)
endfunction()
