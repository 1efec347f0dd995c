#include "aquila/api.h"

const char* aquila_status_text(int status) {
    switch (status) {
        case AQUILA_OK: return "ok";
        case AQUILA_BAD_DTYPE: return "no kernel for this dtype";
        case AQUILA_BAD_ARGUMENT: return "a size is negative, or an option unknown";
        case AQUILA_TOO_LARGE: return "more rows or pairs than a CUDA grid has blocks";
        default: break;
    }
#if defined(AQUILA_WITH_CUDA)
    if (status >= AQUILA_CUDA_ERROR) return aquila_cuda_error_text(status);
#endif
    return "unknown status";
}
