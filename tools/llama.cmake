# How llama-cpp-python's llama.cpp is compiled for this product. Its own CMakeLists.txt includes this file right after
# project() (CMAKE_PROJECT_llama_cpp_INCLUDE), so that its source stays as published.
#
# RUSTYGPT_CPU_VARIANTS: on x86-64 Linux, the processors to compile llama.cpp's CPU backend for, by the names of
# ggml/src/CMakeLists.txt; "all" for an image that runs anywhere; empty: the best for this machine, and a plainer one to
# fall back to, which is compiled with fewer optimisations, in less time. Each is a library of its own; which one is
# loaded is decided at run time (engine/backend.py).

# Only the library: no tools, no HTTP, no vision.
foreach (unused COMMON TOOLS EXAMPLES TESTS SERVER APP MTMD)
    set(LLAMA_BUILD_${unused} OFF)
endforeach ()
set(LLAMA_OPENSSL OFF)
set(LLAVA_BUILD OFF)

# Everything that is installed lies in the package, nothing beside it in site-packages.
set(CMAKE_INSTALL_BINDIR llama_cpp/lib)
set(CMAKE_INSTALL_LIBDIR llama_cpp/lib)
set(CMAKE_INSTALL_INCLUDEDIR llama_cpp/include)

if (NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
    return ()
endif ()

# All that llama.cpp has, the best last.
set(variants x64 sse42 sandybridge ivybridge piledriver haswell alderlake skylakex cannonlake cascadelake icelake
    cooperlake zen4 sapphirerapids)
# What the compiler must know for those that an old one does not.
set(flags_alderlake -mavxvnni)
set(flags_cooperlake -mavx512bf16)
set(flags_zen4 -mavx512bf16)
set(flags_sapphirerapids -mamx-int8)

# The variants for this machine, the best last. The other is for a processor without its latest instructions.
function (variants_of_this_machine result)
    file(STRINGS /proc/cpuinfo lines REGEX "^flags" LIMIT_COUNT 1)
    set(cpu " ${lines} ")
    if (cpu MATCHES " avx " AND cpu MATCHES " f16c ")
        set(found ivybridge)
    elseif (cpu MATCHES " avx ")
        set(found sandybridge)
    else ()
        set(found x64)
    endif ()
    if (cpu MATCHES " avx2 " AND cpu MATCHES " fma " AND cpu MATCHES " f16c " AND cpu MATCHES " bmi2 ")
        list(APPEND found haswell)
        if (cpu MATCHES " avx512f " AND cpu MATCHES " avx512bw " AND cpu MATCHES " avx512vl ")
            set(found haswell)
            if (cpu MATCHES " amx_int8 ")
                # Without AMX is a matter of how a model is loaded (EngineOptions.repack), not of the variant.
                list(APPEND found sapphirerapids)
            elseif (cpu MATCHES " avx512_bf16 " AND cpu MATCHES " avx512_vnni ")
                if (cpu MATCHES " avx512_?vbmi ")
                    list(APPEND found zen4)
                else ()
                    list(APPEND found cooperlake)
                endif ()
            elseif (cpu MATCHES " avx512_vnni " AND cpu MATCHES " avx512_?vbmi ")
                list(APPEND found icelake)
            elseif (cpu MATCHES " avx512_vnni ")
                list(APPEND found cascadelake)
            else ()
                list(APPEND found skylakex)
            endif ()
        elseif (cpu MATCHES " avx_vnni ")
            set(found haswell)
            list(APPEND found alderlake)
        endif ()
    endif ()
    set(${result} ${found} PARENT_SCOPE)
endfunction ()

if (RUSTYGPT_CPU_VARIANTS STREQUAL "all")
    set(wanted ${variants})
elseif (RUSTYGPT_CPU_VARIANTS)
    set(wanted ${RUSTYGPT_CPU_VARIANTS})
else ()
    variants_of_this_machine(wanted)
endif ()

include(CheckCXXCompilerFlag)
foreach (variant IN LISTS wanted)
    if (DEFINED flags_${variant})
        check_cxx_compiler_flag(${flags_${variant}} compiler_knows_${variant})
        if (NOT compiler_knows_${variant})
            message(WARNING "The compiler does not know ${flags_${variant}}: no CPU variant ${variant}.")
            list(REMOVE_ITEM wanted ${variant})
            if (NOT variant STREQUAL "alderlake")
                # What all processors of these variants run, and any compiler knows.
                list(APPEND wanted cascadelake)
            endif ()
        endif ()
    endif ()
endforeach ()
list(REMOVE_DUPLICATES wanted)
if (NOT RUSTYGPT_CPU_VARIANTS)
    set(fallbacks ${wanted})
    list(POP_BACK fallbacks)
endif ()
message(STATUS "CPU variants: ${wanted}")

set(GGML_NATIVE OFF)
set(GGML_BACKEND_DL ON)
set(GGML_CPU_ALL_VARIANTS ON)
# llama.cpp compiles all or none: what is not wanted is taken out of its list, in the copy that is being built.
set(listing ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp/ggml/src/CMakeLists.txt)
file(READ ${listing} text)
foreach (variant IN LISTS variants)
    if (variant IN_LIST wanted)
        if (NOT text MATCHES "ggml_add_cpu_backend_variant\\(${variant}[ )]")
            message(FATAL_ERROR "llama.cpp has no CPU variant ${variant}: tools/llama.cmake is for another version.")
        endif ()
    else ()
        string(REGEX REPLACE "ggml_add_cpu_backend_variant\\(${variant}[ )][^\n]*" "" text "${text}")
    endif ()
endforeach ()
file(WRITE ${listing} "${text}")

# Most of the time of compiling goes into code that reads a model's file and lays out its graph, where it gains nothing
# from being optimised, and into reading the same headers. What each step runs through, and what tokenises, is optimised.
set(optimised llama-batch llama-context llama-grammar llama-graph llama-kv-cache llama-kv-cache-iswa llama-memory-hybrid
    llama-memory-recurrent llama-sampler llama-vocab unicode)
# Not what runs: what only reads files, and what distributes a model over several devices.
set(unoptimised_base gguf ggml-backend-meta ggml-opt)

set(source ${CMAKE_CURRENT_SOURCE_DIR}/vendor/llama.cpp)
set(amx_header ${CMAKE_CURRENT_LIST_DIR}/amx_tile_config.h)

# Compiled apart from the rest of llama, since headers are read once for each way to optimise.
function (optimise_apart)
    list(TRANSFORM optimised PREPEND ${source}/src/ OUTPUT_VARIABLE files)
    list(TRANSFORM files APPEND .cpp)
    set_property(SOURCE ${files} DIRECTORY ${source}/src PROPERTY HEADER_FILE_ONLY ON)
    add_library(llama-optimised OBJECT ${files})
    set_property(TARGET llama-optimised PROPERTY POSITION_INDEPENDENT_CODE ON)
    foreach (kind COMPILE_DEFINITIONS COMPILE_FEATURES COMPILE_OPTIONS INCLUDE_DIRECTORIES)
        set_property(TARGET llama-optimised PROPERTY ${kind} "$<TARGET_PROPERTY:llama,${kind}>")
    endforeach ()
    # Last: llama's own options, as taken over, end with -O1.
    target_compile_options(llama-optimised PRIVATE -O3)
    target_link_libraries(llama-optimised PRIVATE ggml)
    target_compile_options(llama PRIVATE -O1)
    target_sources(llama PRIVATE $<TARGET_OBJECTS:llama-optimised>)
    foreach (target llama llama-optimised)
        target_precompile_headers(${target} PRIVATE ${source}/src/llama-model.h ${source}/src/llama-graph.h
            ${source}/src/llama-model-loader.h <algorithm> <array> <cmath> <functional> <regex> <sstream>)
    endforeach ()
endfunction ()

function (finish_targets)
    optimise_apart()
    list(TRANSFORM unoptimised_base PREPEND ${source}/ggml/src/ OUTPUT_VARIABLE files)
    list(TRANSFORM files APPEND .cpp)
    set_property(SOURCE ${files} DIRECTORY ${source}/ggml/src PROPERTY COMPILE_OPTIONS -O1)
    target_compile_options(ggml-base PRIVATE -O2)
    foreach (variant IN LISTS fallbacks)
        target_compile_options(ggml-cpu-${variant} PRIVATE -O1)
    endforeach ()
    foreach (variant IN LISTS wanted)
        # Without version numbers in its name: a wheel has no links, it would have three copies.
        set_property(TARGET ggml-cpu-${variant} PROPERTY VERSION)
        set_property(TARGET ggml-cpu-${variant} PROPERTY SOVERSION)
        llama_cpp_python_install_target(ggml-cpu-${variant})
    endforeach ()
    if (sapphirerapids IN_LIST wanted)
        target_compile_options(ggml-cpu-sapphirerapids PRIVATE "SHELL:-include \"${amx_header}\"")
    endif ()
endfunction ()
# When the targets are there: at the end of llama-cpp-python's CMakeLists.txt.
cmake_language(DEFER CALL finish_targets)
